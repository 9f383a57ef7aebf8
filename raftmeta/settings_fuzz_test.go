package raftmeta

import (
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// FuzzSetting: a setting is refused by its name, or is one that a node can read; one that a newer version took is its default.
func FuzzSetting(f *testing.F) {
	for _, d := range Definitions {
		for _, value := range []string{"", "0", "-1", "1h", "1s", "true", "100", "1GiB", "9999999999999999999999"} {
			f.Add(d.Name, value)
		}
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		err := CheckSetting(name, value)
		s := SettingsOf(&kvdv1.MetaState{Settings: []*kvdv1.SettingValue{{Name: name, Value: value}}})
		require.Len(t, s.values, len(SettingsOf(&kvdv1.MetaState{}).values))
		for _, d := range Definitions {
			require.NotNil(t, s.values[d.Name], d.Name)
		}
		if err != nil {
			var invalid *kv.InvalidError
			require.ErrorAs(t, err, &invalid)
			require.Contains(t, []string{"setting", name}, invalid.Field)
		}
	})
}
