package lockprobe

import (
	"math"
	"time"
)

// milliseconds has one digit behind the point.
func milliseconds(d time.Duration) float64 { return math.Round(float64(d.Microseconds())/100) / 10 }
