// Package geo makes keys of places, so that neighbouring places are neighbouring keys, and covers a circle or a
// box on the map by spans of such keys.
//
// A place's key is a prefix, its geohash, a slash and an id:
//
//	geo/u33dc0cpn/2950159
//	--- -+------- -+-----
//	prefix |       id
//	       geohash: each character cuts its cell into 32
//
// All keys of a cell begin with the cell's geohash, so a cell is a span of keys, and a shard whose bounds are such
// prefixes is a piece of the map. A cover is a bounded number of spans that together hold the key of every place
// in the shape, and of some places around it: who scans them compares each place's distance, or the box, itself.
//
// Latitudes and longitudes are in degrees, distances in metres on a sphere. The antimeridian and the poles are
// no special places: longitudes -180 and 180 are one meridian, and a box may cross it.
package geo
