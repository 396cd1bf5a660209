variable "region" {
  description = "Where. Spot prices differ by region and hour."
  type        = string
  default     = "us-east-1"
}

variable "name" {
  description = "What everything is called."
  type        = string
  default     = "lull"
}

variable "instance_type" {
  description = "Of all machines. An m4.xlarge, 4 processors and 16 GB, is what the published runs had."
  type        = string
  default     = "m4.xlarge"
}

variable "ssh_public_key" {
  description = "The key with which you log in, as in id_ed25519.pub."
  type        = string
}

variable "admin_cidr" {
  description = "The addresses from which you log in, such as 203.0.113.7/32. No other address reaches the machines."
  type        = string

  validation {
    condition     = can(cidrhost(var.admin_cidr, 0)) && var.admin_cidr != "0.0.0.0/0"
    error_message = "It is an IPv4 range, and not all of them: the security group admits everybody, so this is the only fence."
  }
}

variable "connections" {
  description = "Connections, over all generators."
  type        = number
  default     = 1000000
}

variable "ports" {
  description = "Ports on which the server listens. Each lets a source address connect 64,512 times more."
  type        = number
  default     = 4

  validation {
    condition     = var.ports >= 1 && var.ports <= 100
    error_message = "1 to 100."
  }
}

variable "generators" {
  description = "Machines that connect."
  type        = number
  default     = 1

  validation {
    condition     = var.generators >= 1 && var.generators <= 60
    error_message = "1 to 60."
  }
}

variable "addresses" {
  description = "Private addresses of each generator; an m4.xlarge has at most 15 on an interface."
  type        = number
  default     = 15

  validation {
    condition     = var.addresses >= 1 && var.addresses <= 50
    error_message = "1 to 50."
  }
}

variable "rate" {
  description = "Connections a second, over all generators."
  type        = number
  default     = 10000
}

variable "spot" {
  description = "Spot instances, which AWS may take back, at a third of the price or so."
  type        = bool
  default     = true
}

variable "spot_price" {
  description = "The most to pay for a spot instance, in dollars an hour; by default what it costs on demand."
  type        = string
  default     = null
}

variable "availability_zone" {
  description = "By default the first that offers the instance type."
  type        = string
  default     = null
}

variable "ami" {
  description = "An image with systemd 240 and Linux 6.1 or newer; by default the newest Debian 13."
  type        = string
  default     = null
}

variable "user" {
  description = "The image's user."
  type        = string
  default     = "admin"
}
