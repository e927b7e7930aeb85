package ansible

import "time"

// SetGrace makes a test's watchdog quicker.
func SetGrace(d time.Duration) { grace = d }

// Grace is what it was set to.
func Grace() time.Duration { return grace }
