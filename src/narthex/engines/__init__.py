"""The engines that decide beside the grants: Rego in this process or beside it, and a remote Open Policy Agent."""
