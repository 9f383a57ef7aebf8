//go:build mutant_birth_overwrites

package node

// mutantBirthOverwrites breaks S3 on purpose: a birth removes the log that the child has already.
const mutantBirthOverwrites = true
