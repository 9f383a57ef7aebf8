//go:build !mutant_shape_while_joint

package shard

const mutantShapeWhileJoint = false
