//go:build !mutant_birth_overwrites

package node

const mutantBirthOverwrites = false
