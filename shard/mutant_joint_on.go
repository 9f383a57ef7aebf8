//go:build mutant_shape_while_joint

package shard

// mutantShapeWhileJoint breaks S1 and G1: a shard is split, merged or frozen while its configuration is joint.
const mutantShapeWhileJoint = true
