//go:build !mutant_stranger_elected

package node

const mutantStrangerElected = false
