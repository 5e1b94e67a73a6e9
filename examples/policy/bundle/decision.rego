# Who may do what: roles from the identity provider, their tools and limits from `data.json`.
#
# The gateway asks `data.narthex.decision` about each call, and with `input.action` "list" about what somebody sees:
# then there is no call, so rules about arguments or the network do not apply.
package narthex

default decision := {"allow": false, "reasons": ["no role grants it"]}

decision := {"allow": false, "reasons": sort(denied)} if count(denied) > 0

decision := {"allow": true, "reasons": reasons, "obligations": obligations} if {
	count(denied) == 0
	count(granting) > 0
	reasons := [sprintf("granted to role %s", [role]) | some role in sort(granting)]
}

granting contains role if {
	some role in input.subject.roles
	some pattern in data.roles[role].tools
	glob.match(pattern, [], input.resource.name)
}

calling if input.action != "list"

denied contains "only an admin deletes" if {
	regex.match(`^(delete|drop|purge)_`, input.resource.upstream_name)
	not "admin" in input.subject.roles
}

denied contains sprintf("%v is more than %v", [amount, limit]) if {
	calling
	limit := data.limits[input.resource.name]
	amount := object.get(input.mcp.arguments, "amount", 0)
	amount > limit
}

denied contains "restricted data only from the office" if {
	calling
	input.resource.classification == "restricted"
	not from_office
}

from_office if {
	some network in data.networks
	net.cidr_contains(network, input.context.ip)
}

obligations["redact"] := ["/structuredContent/iban"] if not "auditor" in input.subject.roles

obligations["require_approval"] if {
	calling
	input.mcp.arguments.amount > data.limits[input.resource.name] / 2
}
