package geo

import "math"

// EarthRadius is the mean radius of the earth, in metres (IUGG).
const EarthRadius = 6371008.8

// Distance between two points, in metres, on a sphere; the real earth differs by up to half a per cent.
func Distance(lat1, lon1, lat2, lon2 float64) float64 {
	return EarthRadius * angle(radians(lat1), radians(lat2), radians(lon2-lon1))
}

// angle between two points of latitudes a and b whose longitudes differ by d. By the arc tangent, because the arc
// cosine is inexact for near points and the haversine for opposite ones.
func angle(a, b, d float64) float64 {
	sinA, cosA := math.Sincos(a)
	sinB, cosB := math.Sincos(b)
	sinD, cosD := math.Sincos(d)
	across := math.Hypot(cosB*sinD, cosA*sinB-sinA*cosB*cosD)
	return math.Atan2(across, sinA*sinB+cosA*cosB*cosD)
}

func radians(degrees float64) float64 { return degrees * (math.Pi / 180) }

// nearest is the distance from a point to the nearest point of a cell, 0 inside, in metres.
func nearest(lat, lon float64, c cell) float64 {
	a, south, north := radians(lat), radians(c.south), radians(c.north)
	d := meridianGap(lon, c.west, c.east)
	// On the meridian of the cell that is nearest in longitude (for every latitude that one is nearest), the
	// distance has one minimum, where the great circle through the point meets it at a right angle.
	foot := math.Atan2(math.Sin(a), math.Cos(a)*math.Cos(d))
	best := min(angle(a, south, d), angle(a, north, d))
	if foot > south && foot < north {
		best = min(best, angle(a, foot, d))
	}
	return EarthRadius * best
}

// farthest is the distance from a point to the farthest point of a cell, in metres: half the way around the earth
// less the distance from the opposite point to the nearest.
func farthest(lat, lon float64, c cell) float64 {
	opposite := lon + 180
	if opposite > 180 {
		opposite -= 360
	}
	return math.Pi*EarthRadius - nearest(-lat, opposite, c)
}

// meridianGap is the least difference, in radians, between a longitude and those from west to east.
func meridianGap(lon, west, east float64) float64 {
	if lon >= west && lon <= east {
		return 0
	}
	return radians(min(turn(lon-west), turn(lon-east)))
}

// turn is the difference of two longitudes as an angle from 0 to 180.
func turn(degrees float64) float64 {
	degrees = math.Abs(degrees)
	return min(degrees, 360-degrees)
}
