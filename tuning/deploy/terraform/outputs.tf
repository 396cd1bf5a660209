output "ssh_server" {
  description = "Log in to the server."
  value       = "ssh ${local.server_host}"
}

output "ssh_generators" {
  description = "Log in to the generators."
  value       = [for host in local.generator_hosts : "ssh ${host}"]
}

output "install" {
  description = "Bring the program, built with make, to all machines, restart them for the larger TCP hash table, and start the server. To be run in the repository."
  value = join("\n", concat(
    flatten([for host in concat([local.server_host], local.generator_hosts) : [
      "scp bin/lull ${host}:",
      "ssh ${host} 'cloud-init status --wait; sudo install lull /usr/local/bin/'",
    ]]),
    ["ssh ${local.server_host} sudo systemctl enable lull"],
    flatten([for host in concat([local.server_host], local.generator_hosts) : [
      "ssh ${host} sudo systemctl reboot || true",
      "for _ in $(seq 60); do sleep 5; ! ssh -o ConnectTimeout=5 ${host} grep -q thash_entries /proc/cmdline || break; done",
    ]]),
  ))
}

output "run" {
  description = "Run the experiment; the result is printed."
  value = join("\n", concat([for host in local.generator_hosts : join("; ", [
    "ssh ${host} 'since=$(date +%s)",
    "sudo systemctl start --wait lull-load",
    "code=$?",
    "sudo journalctl -o cat -u lull-load --since=@$since",
    "exit $code'${var.generators > 1 ? " &" : ""}",
  ])], var.generators > 1 ? ["wait"] : []))
}

locals {
  server_host     = "${var.user}@${aws_instance.server.public_ip}"
  generator_hosts = [for g in aws_instance.generator : "${var.user}@${g.public_ip}"]
}
