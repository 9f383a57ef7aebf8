//go:build mutant_shape_before_commit

package replica

// mutantShapeBeforeCommit breaks T5 on purpose: what changes the shape is applied before its commit is durable.
const mutantShapeBeforeCommit = true
