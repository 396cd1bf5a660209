// Package limit fills in and checks how much of something there may be.
package limit

import "fmt"

// Set gives an option that is zero its usual value. It returns an error unless the option
// is from 1 to what is possible then.
func Set(value *int, usual, most int, of string) error {
	if *value == 0 {
		*value = usual
	}
	if *value < 1 || *value > most {
		return fmt.Errorf("at most %d %s; 1 to %d are possible", *value, of, most)
	}
	return nil
}
