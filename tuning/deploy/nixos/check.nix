# Evaluates the module with the least of nixpkgs' library, which offline checks
# lack: the names and calls of lull.nix are right, if not its options' types.
let
  lib = rec {
    attrValues = builtins.attrValues;
    concatMapStrings = f: list: builtins.concatStringsSep "" (map f list);
    filterAttrs = f: set: builtins.listToAttrs (
      map (name: nameValuePair name set.${name}) (builtins.filter (name: f name set.${name}) (builtins.attrNames set))
    );
    mapAttrs' = f: set: builtins.listToAttrs (map (name: f name set.${name}) (builtins.attrNames set));
    mkEnableOption = description: { inherit description; };
    mkIf = condition: content: if condition then content else { };
    mkOption = option: option;
    nameValuePair = name: value: { inherit name value; };
    optional = condition: value: if condition then [ value ] else [ ];
    types = {
      listOf = type: type;
      package = "package";
      str = "str";
    };
  };
  module = server: generator: import ./lull.nix {
    inherit lib;
    utils.escapeSystemdExecArgs = builtins.concatStringsSep " ";
    pkgs.runCommand = _: _: script: script;
    config.services.lull = {
      package = "/package";
      server = {
        enable = server;
        flags = [ "--listen=:8080" ];
      };
      generator = {
        enable = generator;
        flags = [ "--conns=1000" ];
      };
    };
  };
  both = (module true true).config;
  services = both.systemd.services;
in
assert (module false false).config == { };
assert builtins.attrNames (module true false).config.environment.etc == [ "sysctl.d/90-lull-server.conf" ];
assert builtins.attrNames services == [ "lull" "lull-load" "systemd-sysctl" ];
assert builtins.all (p: builtins.match "thash_entries=[0-9]+" p != null) both.boot.kernelParams;
assert builtins.length both.boot.kernelParams == 2;
assert services.lull.wantedBy == [ "multi-user.target" ] && services.lull-load.wantedBy == [ ];
assert services.lull.serviceConfig.ExecStart == [ "" "/package/bin/lull serve --listen=:8080" ];
assert builtins.length (builtins.attrNames (module true true).options.services.lull) == 3;
builtins.deepSeq both "ok"
