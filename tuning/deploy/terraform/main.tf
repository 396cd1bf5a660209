# One server and its generators, side by side. Nothing here is meant to last:
# terraform destroy when the experiment is over.

terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.30, < 7"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { Name = var.name }
  }
}

data "aws_ec2_instance_type" "this" {
  instance_type = var.instance_type
}

# Older types are not in every zone.
data "aws_ec2_instance_type_offerings" "this" {
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = [var.instance_type]
  }
}

data "aws_ami" "debian" {
  owners      = ["136693071363"] # Debian
  most_recent = true

  filter {
    name   = "name"
    values = ["debian-13-${local.architecture == "arm64" ? "arm64" : "amd64"}-*"]
  }
  filter {
    name   = "architecture"
    values = [local.architecture]
  }
}

locals {
  architecture = contains(data.aws_ec2_instance_type.this.supported_architectures, "arm64") ? "arm64" : "x86_64"
  ami          = coalesce(var.ami, data.aws_ami.debian.id)
  zone         = coalesce(var.availability_zone, sort(data.aws_ec2_instance_type_offerings.this.locations)[0])

  # The server has address 10 of the subnet. Each generator has its addresses
  # side by side, from a multiple of 64 on.
  subnet     = "10.134.0.0/20"
  server     = cidrhost(local.subnet, 10)
  generators = [for i in range(var.generators) : [for j in range(var.addresses) : cidrhost(local.subnet, 64 * (i + 1) + j)]]

  ports       = range(8080, 8080 + var.ports)
  connections = ceil(var.connections / var.generators)
  rate        = max(1, floor(var.rate / var.generators))

  # What the machines do at first: what is in ../cloud-init, and this
  # experiment's flags.
  server_data    = yamldecode(file("${path.module}/../cloud-init/server.yaml"))
  generator_data = yamldecode(file("${path.module}/../cloud-init/generator.yaml"))
  server_flags = join(" ", [
    "--listen=${join(",", [for p in local.ports : "0.0.0.0:${p}"])}",
    "--max-conns=${var.connections + 100}", # a few more for people who look at it
    "--status=1m",
  ])
  generator_flags = [for addresses in local.generators : join(" ", concat([
    "--url=${join(",", [for p in local.ports : "ws://${local.server}:${p}/"])}",
    "--sources=${addresses[0]}-${addresses[var.addresses - 1]}",
    "--conns=${local.connections}",
    "--rate=${local.rate}",
    # A generator counts its own messages, so several of them only connect.
  ], var.generators == 1 ? ["--hold=30s", "--broadcasts=5"] : ["--hold=5m"]))]
}

resource "aws_vpc" "this" {
  cidr_block = local.subnet
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_subnet" "this" {
  vpc_id                  = aws_vpc.this.id
  cidr_block              = local.subnet
  availability_zone       = local.zone
  map_public_ip_on_launch = true
}

resource "aws_route_table" "this" {
  vpc_id = aws_vpc.this.id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.this.id
  }
}

resource "aws_route_table_association" "this" {
  subnet_id      = aws_subnet.this.id
  route_table_id = aws_route_table.this.id
}

# A security group tracks connections, up to a number that AWS does not
# publish, unless its rules admit everybody and let everything out. So this one
# does both, and the fence is the network ACL below: it keeps no state.
resource "aws_security_group" "untracked" {
  name        = "${var.name}-untracked"
  description = "Everything, both ways, so that nothing is tracked. The network ACL is the fence."
  vpc_id      = aws_vpc.this.id

  ingress {
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = ["0.0.0.0/0"]
  }
  egress {
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = ["0.0.0.0/0"]
  }
}

# Between subnet and world: SSH from you, and its answers. Traffic within the
# subnet does not pass here. The machines need nothing else, not even updates
# in the middle of a run.
resource "aws_network_acl" "fence" {
  vpc_id     = aws_vpc.this.id
  subnet_ids = [aws_subnet.this.id]

  ingress {
    rule_no    = 100
    action     = "allow"
    protocol   = "tcp"
    cidr_block = var.admin_cidr
    from_port  = 22
    to_port    = 22
  }
  egress {
    rule_no    = 100
    action     = "allow"
    protocol   = "tcp"
    cidr_block = var.admin_cidr
    from_port  = 1024
    to_port    = 65535
  }
}

# Side by side, for the network between them.
resource "aws_placement_group" "this" {
  name     = var.name
  strategy = "cluster"
}

resource "aws_key_pair" "this" {
  key_name   = var.name
  public_key = var.ssh_public_key
}

resource "aws_instance" "server" {
  ami                         = local.ami
  instance_type               = var.instance_type
  subnet_id                   = aws_subnet.this.id
  private_ip                  = local.server
  vpc_security_group_ids      = [aws_security_group.untracked.id]
  placement_group             = aws_placement_group.this.name
  key_name                    = aws_key_pair.this.key_name
  user_data_replace_on_change = true
  user_data = "#cloud-config\n${yamlencode(merge(local.server_data, {
    write_files = concat(local.server_data.write_files, [
      { path = "/etc/default/lull", content = "LULL_SERVE=\"${local.server_flags}\"\n" },
    ])
  }))}"

  dynamic "instance_market_options" {
    for_each = var.spot ? [1] : []
    content {
      market_type = "spot"
      spot_options {
        max_price = var.spot_price
      }
    }
  }
  metadata_options {
    http_tokens = "required"
  }
  tags = { Name = "${var.name}-server" }
}

resource "aws_instance" "generator" {
  count = var.generators

  ami                         = local.ami
  instance_type               = var.instance_type
  subnet_id                   = aws_subnet.this.id
  private_ip                  = local.generators[count.index][0]
  secondary_private_ips       = slice(local.generators[count.index], 1, var.addresses)
  vpc_security_group_ids      = [aws_security_group.untracked.id]
  placement_group             = aws_placement_group.this.name
  key_name                    = aws_key_pair.this.key_name
  user_data_replace_on_change = true
  user_data = "#cloud-config\n${yamlencode(merge(local.generator_data, {
    write_files = concat(local.generator_data.write_files, [
      { path = "/etc/default/lull-load", content = "LULL_LOAD=\"${local.generator_flags[count.index]}\"\n" },
      # Most images give the interface all its addresses. Where one has not, here it
      # is, at every boot.
      { path = "/var/lib/cloud/scripts/per-boot/addresses", permissions = "0755", content = join("\n", concat(["#!/bin/sh"],
        [for a in local.generators[count.index] :
          "ip -4 -o address | grep -qF ' ${a}/' || ip address add ${a}/32 dev \"$(ip -o route get ${local.server} | sed 's/.* dev //; s/ .*//')\""
      ], [""])) },
    ])
  }))}"

  dynamic "instance_market_options" {
    for_each = var.spot ? [1] : []
    content {
      market_type = "spot"
      spot_options {
        max_price = var.spot_price
      }
    }
  }
  metadata_options {
    http_tokens = "required"
  }
  tags = { Name = "${var.name}-generator-${count.index}" }

  lifecycle {
    precondition {
      condition     = var.addresses <= data.aws_ec2_instance_type.this.maximum_ipv4_addresses_per_interface
      error_message = "The instance type has fewer addresses on an interface: fewer addresses, and more ports or generators."
    }
    precondition {
      condition     = var.addresses * 64512 * var.ports >= local.connections * 1.02
      error_message = "Too few source addresses × ports: each pair of an address and a server's port makes 64,512 connections, and 2 % are to spare."
    }
  }
}
