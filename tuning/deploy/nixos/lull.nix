# The server, the generator, or both, with the same units and kernel settings
# as everywhere else: they are read from the files beside.
#
#   imports = [ ./tuning/deploy/nixos/lull.nix ];
#   services.lull = {
#     package = …;                       # with bin/lull, built with buildGoModule for instance
#     server.enable = true;
#     # Without --listen, only this machine can connect.
#     server.flags = [ "--listen=0.0.0.0:8080,0.0.0.0:8081" "--max-conns=1000000" ];
#   };
{ config, lib, pkgs, utils, ... }:

let
  cfg = config.services.lull;

  roles = {
    server = {
      unit = "lull";
      command = "serve";
      sysctl = ../sysctl.d/90-lull-server.conf;
      boot = ../grub.d/90-lull-server.cfg;
    };
    generator = {
      unit = "lull-load";
      command = "load --json=%S/lull-load/result.json";
      sysctl = ../sysctl.d/90-lull-load.conf;
      boot = ../grub.d/90-lull-load.cfg;
    };
  };

  enabled = lib.filterAttrs (name: _: cfg.${name}.enable) roles;

  units = pkgs.runCommand "lull-units" { } (
    "mkdir -p $out/lib/systemd/system\n"
    + lib.concatMapStrings (role: ''
      cp ${../systemd + "/${role.unit}.service"} $out/lib/systemd/system/${role.unit}.service
    '') (lib.attrValues enabled)
  );

  options = what: {
    enable = lib.mkEnableOption what;
    flags = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Flags of the command.";
    };
  };
in
{
  options.services.lull = {
    package = lib.mkOption {
      type = lib.types.package;
      description = "The package that has bin/lull.";
    };
    server = options "the WebSocket server";
    generator = options "the load generator, for systemctl start --wait lull-load";
  };

  config = lib.mkIf (enabled != { }) {
    environment.systemPackages = [ cfg.package ];

    # The size of TCP's hash table, from the next boot on.
    boot.kernelParams = map (
      role: builtins.head (builtins.match ".*[ ](thash_entries=[0-9]+).*" (builtins.readFile role.boot))
    ) (lib.attrValues enabled);

    systemd.packages = [ units ];

    systemd.services = lib.mapAttrs' (
      name: role:
      lib.nameValuePair role.unit {
        # A drop-in: everything else comes from the unit.
        overrideStrategy = "asDropin";
        wantedBy = lib.optional (name == "server") "multi-user.target";
        serviceConfig.ExecStart = [
          ""
          "${cfg.package}/bin/lull ${role.command} ${utils.escapeSystemdExecArgs cfg.${name}.flags}"
        ];
      }
    ) enabled
    // {
      systemd-sysctl.restartTriggers = map (role: role.sysctl) (lib.attrValues enabled);
    };

    environment.etc = lib.mapAttrs' (
      _: role:
      lib.nameValuePair "sysctl.d/${baseNameOf role.sysctl}" { source = role.sysctl; }
    ) enabled;
  };
}
