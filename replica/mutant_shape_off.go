//go:build !mutant_shape_before_commit

package replica

const mutantShapeBeforeCommit = false
