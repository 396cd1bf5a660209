// Package scenario reads what a load generator shall do from a YAML file: [Load] makes a
// [plan.Plan] of it. docs/scenarios.md is its manual, docs/scenario.schema.json its
// schema for editors.
//
// Every key is a row of a table, with its limits and what it is for. The decoder, the
// schema and the manual's tables follow from these rows.
package scenario
