# One question for many documents at once: `policy.opa.batch: narthex/decisions`.
package narthex

decisions := [answer |
	some document in input.documents
	answer := decision with input as document
]
