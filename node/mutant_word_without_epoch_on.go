//go:build mutant_word_without_epoch

package node

// mutantWordWithoutEpoch breaks M4 on purpose: the map is believed without its epoch.
const mutantWordWithoutEpoch = true
