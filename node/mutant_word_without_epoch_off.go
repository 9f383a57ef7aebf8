//go:build !mutant_word_without_epoch

package node

const mutantWordWithoutEpoch = false
