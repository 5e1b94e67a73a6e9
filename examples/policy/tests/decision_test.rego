package narthex_test

import data.narthex

call(roles, tool, arguments) := {
	"v": 1,
	"action": "tools/call",
	"phase": "request",
	"subject": {"id": "ann", "roles": roles},
	"resource": {"kind": "tool", "name": tool, "upstream_name": split(tool, "__")[1], "classification": "internal"},
	"mcp": {"method": "tools/call", "arguments": arguments},
	"context": {"ip": "10.1.2.3"},
}

listed(roles, tool) := object.union(
	object.remove(call(roles, tool, {}), ["mcp", "context"]),
	{"action": "list", "phase": "list"},
)

test_a_role_grants_its_tools if {
	answer := narthex.decision with input as call(["support"], "crm__get_customer", {})
	answer.allow
	answer.reasons == ["granted to role support"]
}

test_nothing_else_is_granted if {
	answer := narthex.decision with input as call(["support"], "crm__update_customer", {})
	not answer.allow
	answer.reasons == ["no role grants it"]
}

test_nobody_without_a_role if {
	answer := narthex.decision with input as call([], "crm__get_customer", {})
	not answer.allow
}

test_only_an_admin_deletes if {
	support := narthex.decision with input as call(["support"], "crm__delete_customer", {})
	support.reasons == ["only an admin deletes"]
	admin := narthex.decision with input as call(["admin"], "crm__delete_customer", {})
	admin.allow
}

test_a_limit_counts_for_calls if {
	small := narthex.decision with input as call(["support"], "billing__refund", {"amount": 20})
	small.allow
	not small.obligations.require_approval
	middle := narthex.decision with input as call(["support"], "billing__refund", {"amount": 80})
	middle.obligations.require_approval
	large := narthex.decision with input as call(["support"], "billing__refund", {"amount": 120})
	large.reasons == ["120 is more than 100"]
}

test_a_limit_hides_nothing if {
	answer := narthex.decision with input as listed(["support"], "billing__refund")
	answer.allow
}

test_restricted_data_only_from_the_office if {
	asked := json.patch(call(["admin"], "crm__get_customer", {}), [
		{"op": "replace", "path": "/resource/classification", "value": "restricted"},
		{"op": "replace", "path": "/context/ip", "value": "192.0.2.1"},
	])
	answer := narthex.decision with input as asked
	answer.reasons == ["restricted data only from the office"]
}

test_account_numbers_are_taken_out_but_for_auditors if {
	support := narthex.decision with input as call(["support"], "crm__get_customer", {})
	support.obligations.redact == ["/structuredContent/iban"]
	auditor := narthex.decision with input as call(["auditor"], "crm__get_customer", {})
	not auditor.obligations.redact
}

test_many_at_once_in_their_order if {
	answers := narthex.decisions with input as {"documents": [
		listed(["support"], "crm__get_customer"),
		listed(["support"], "crm__delete_customer"),
		listed(["support"], "billing__refund"),
	]}
	[answer.allow | some answer in answers] == [true, false, true]
}
