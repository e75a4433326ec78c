# An AMI for the nodes of a fleet: Amazon's ECS-optimized AL2023 for x86_64 with fleet-agent on it. How to use it: docs/baking.md.
# Debian's Packer 1.6.6 takes this file alone; it does not know plugins.pkr.hcl.

variable "release" {
  description = "Path of the release to install, fleet-VERSION-x86_64-linux.tar.gz. The AMI's name and tags take the version from it."
  type        = string

  validation {
    condition     = regex_replace(var.release, "^(.*/)?fleet-[0-9][0-9A-Za-z.+-]*-x86_64-linux[.]tar[.]gz$", "") == ""
    error_message = "The release must be named as it was made, fleet-VERSION-x86_64-linux.tar.gz, for the tag to say its version."
  }
}

variable "sha256" {
  description = "SHA-256 of that file, checked on the builder before anything in it runs."
  type        = string

  validation {
    condition     = length(var.sha256) == 64 && regex_replace(var.sha256, "^[0-9a-f]+$", "") == ""
    error_message = "The sum must be 64 hexadecimal digits in lower case, as sha256sum prints it."
  }
}

variable "region" {
  description = "AWS region of the builder and the AMI."
  type        = string
  default     = env("AWS_REGION")

  validation {
    condition     = length(var.region) > 0
    error_message = "The region must be given, here or in AWS_REGION."
  }
}

variable "base_ami" {
  description = "Id of the image to build on; empty for Amazon's newest ECS-optimized AL2023 for x86_64."
  type        = string
  default     = ""

  validation {
    condition     = regex_replace(var.base_ami, "^ami-[0-9a-f]+$", "") == ""
    error_message = "The base must be an id such as ami-0123456789abcdef0."
  }
}

variable "images" {
  description = "Container images to have on the nodes before they boot, such as those of sidecars: from registries that ask for no login."
  type        = list(string)
  default     = []
}

variable "name_prefix" {
  description = "How the AMI's name begins; the version and the time follow."
  type        = string
  default     = "fleet"

  validation {
    condition     = length(var.name_prefix) <= 64 && regex_replace(var.name_prefix, "^[0-9A-Za-z()./_-]+$", "") == ""
    error_message = "The prefix must have at most 64 letters, digits and ( ) . / - _ characters, of which EC2 lets a name be made."
  }
}

variable "tags" {
  description = "More tags of the AMI, its snapshots and the builder. Those that the template sets itself win."
  type        = map(string)
  default     = {}
}

variable "kms_key" {
  description = "Id, ARN or alias of the KMS key that encrypts the AMI; empty for the account's default key of EBS."
  type        = string
  default     = ""

  validation {
    condition     = var.kms_key != "alias/aws/ebs"
    error_message = "The key alias/aws/ebs is the account's default: leave it empty. An AMI under that key cannot be shared."
  }
}

variable "share_with" {
  description = "Ids of accounts that may launch the AMI. They need kms_key, which they must be allowed to use: the default key is not shared."
  type        = list(string)
  default     = []

  validation {
    condition     = length([for id in var.share_with : id if length(id) != 12 || regex_replace(id, "^[0-9]+$", "") != ""]) == 0
    error_message = "The accounts must be ids of 12 digits."
  }
}

variable "instance_type" {
  description = "Type of the builder, for x86_64."
  type        = string
  default     = "t3.small"
}

variable "subnet" {
  description = "Id of the builder's subnet; empty for one of the default VPC."
  type        = string
  default     = ""
}

variable "ssh_interface" {
  description = "Which address of the builder is used, public_ip or private_ip; empty for the public one if there is one."
  type        = string
  default     = ""
}

variable "ssh_from" {
  description = "Who reaches the builder's port 22 while it is being built: address ranges."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "ec2_endpoint" {
  description = "URL of EC2's API in the place of the region's own."
  type        = string
  default     = env("AWS_ENDPOINT_URL")
}

locals {
  archive = "/tmp/fleet-release.tar.gz"
  version = regex_replace(basename(var.release), "^fleet-(.+)-x86_64-linux[.]tar[.]gz$", "$1")
  time    = formatdate("YYYYMMDD-hhmmss", timestamp())
  name    = "${var.name_prefix}-${local.version}-${local.time}"
  # fleet-bootstrap finds the AMI by them: `ami = { tags = { "fleet:agent-version" = "0.1.0" } }`.
  tags = merge(var.tags, {
    "Name"                = local.name
    "fleet:agent-version" = local.version
    "fleet:base-ami"      = "{{ .SourceAMI }}"
  })
}

source "amazon-ebs" "node" {
  region              = var.region
  custom_endpoint_ec2 = var.ec2_endpoint
  # The first call says as much, and asks no other service.
  skip_credential_validation = true

  source_ami = var.base_ami
  dynamic "source_ami_filter" {
    for_each = var.base_ami == "" ? ["al2023-ami-ecs-hvm-*-x86_64"] : []
    content {
      owners      = ["amazon"]
      most_recent = true
      filters     = { name = source_ami_filter.value }
    }
  }

  # IMDSv2 only, as AL2023 asks for by itself (its images have imds-support v2.0). Packer 1.6.6 has no word for it.
  instance_type                         = var.instance_type
  subnet_id                             = var.subnet
  temporary_security_group_source_cidrs = var.ssh_from
  ssh_interface                         = var.ssh_interface
  ssh_username                          = "ec2-user"
  run_tags                              = merge(var.tags, { Name = "${local.name} (being built)" })
  ami_name                              = local.name
  ami_description                       = "fleet-agent ${local.version} on {{ .SourceAMIName }}"
  encrypt_boot                          = true
  kms_key_id                            = var.kms_key
  ami_users                             = var.share_with
  tags                                  = local.tags
  snapshot_tags                         = local.tags
}

build {
  sources = ["source.amazon-ebs.node"]

  provisioner "file" {
    source      = var.release
    destination = local.archive
  }

  # In this order: what is put on the image, and then what must not be on it.
  provisioner "shell" {
    execute_command = "sudo env {{ .Vars }} sh '{{ .Path }}'"
    environment_vars = [
      "ARCHIVE=${local.archive}",
      "SHA256=${var.sha256}",
      "IMAGES=${join(" ", var.images)}",
    ]
    scripts = ["${path.root}/install.sh", "${path.root}/pull.sh", "${path.root}/clean.sh"]
  }
}
