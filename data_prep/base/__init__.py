"""What every package needs below its subject: files, manifests, compiled networks, identifiers, versions."""
