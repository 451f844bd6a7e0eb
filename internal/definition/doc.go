// Package definition is what a service's definition may say, for both who read one: package config, which tells the place of
// every mistake on the host already, and package service, which starts what it says.
//
// The easy case is a function for each kind of text. It gives what the text means, and why, a clause for a person, which is
// empty if the text is well. Whoever asks knows what the text is called and where it stands, and makes the error.
//
// Nothing here looks at the machine: the same text is well on a host and in every guest. Whether there is such a user, such a
// program or a kernel that can do it is asked elsewhere.
package definition
