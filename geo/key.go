package geo

import (
	"bytes"
	"fmt"
	"math"

	"github.com/mmcloughlin/geohash"

	"github.com/kvdstore/kvd/kv"
)

const (
	// Prefix begins the keys of places, by convention.
	Prefix = "geo/"
	// CharsDefault is how many characters of geohash a key has by convention: a cell of some 5 metres.
	CharsDefault = 9
	// CharsMax is the longest geohash: a cell of some 4 centimetres.
	CharsMax = 12
)

// Key is the key of a place: prefix, geohash of chars characters, a slash, id. It is nil when CheckKey refuses
// the arguments.
func Key(prefix string, lat, lon float64, chars int, id string) []byte {
	if CheckKey(prefix, lat, lon, chars, id) != nil {
		return nil
	}
	key := make([]byte, 0, len(prefix)+chars+1+len(id))
	key = append(key, prefix...)
	key = append(key, Hash(lat, lon, chars)...)
	key = append(key, '/')
	return append(key, id...)
}

// CheckKey refuses, with a *kv.InvalidError that names the field, what Key cannot make a key of.
func CheckKey(prefix string, lat, lon float64, chars int, id string) error {
	if err := CheckPoint(lat, lon); err != nil {
		return err
	}
	if err := checkChars(chars); err != nil {
		return err
	}
	if id == "" {
		return &kv.InvalidError{Field: "id", Bound: "at least 1 byte"}
	}
	if n := len(prefix) + chars + 1 + len(id); n > kv.KeyBytesMax {
		return &kv.InvalidError{Field: "key", Bound: fmt.Sprintf("at most %d bytes with prefix, geohash and id, has %d", kv.KeyBytesMax, n)}
	}
	return nil
}

// CheckPoint refuses, with a *kv.InvalidError that names the field, what is no place on the map.
func CheckPoint(lat, lon float64) error {
	if err := checkDegrees("latitude", lat, 90); err != nil {
		return err
	}
	return checkDegrees("longitude", lon, 180)
}

// checkDegrees is written so that it refuses a NaN.
func checkDegrees(field string, degrees, most float64) error {
	if !(math.Abs(degrees) <= most) {
		return &kv.InvalidError{Field: field, Bound: fmt.Sprintf("-%v to %v degrees, is %v", most, most, degrees)}
	}
	return nil
}

func checkChars(chars int) error {
	if chars < 1 || chars > CharsMax {
		return &kv.InvalidError{Field: "chars", Bound: fmt.Sprintf("1 to %d, is %d", CharsMax, chars)}
	}
	return nil
}

// edge keeps a point off the upper edges of the map, in degrees: less than the smallest cell, and more than what
// rounding could carry over the edge, where the encoding would begin again at 0.
const edge = 1e-8

// Hash is the geohash of a valid point. Cells hold their lower edges and not their upper ones, so the meridian
// 180 is taken for -180, and the north pole lies in the last row.
func Hash(lat, lon float64, chars int) string {
	if lon >= 180 {
		lon = -180
	}
	return geohash.EncodeWithPrecision(min(lat, 90-edge), min(lon, 180-edge), uint(chars))
}

// ParseKey takes a key of Key apart.
func ParseKey(prefix string, key []byte) (hash, id string, err error) {
	rest, ok := bytes.CutPrefix(key, []byte(prefix))
	h, i, slash := bytes.Cut(rest, []byte{'/'})
	if !ok || !slash || len(h) == 0 || len(h) > CharsMax || geohash.Validate(string(h)) != nil {
		return "", "", &kv.InvalidError{Field: "key", Bound: fmt.Sprintf("%s<geohash>/<id>, is %s", prefix, kv.FormatKey(key))}
	}
	return string(h), string(i), nil
}

// Center is the middle of the cell of a valid geohash.
func Center(hash string) (lat, lon float64) { return geohash.DecodeCenter(hash) }
