"""What kdnsctl is measured against."""
