// Package identity is who a device is: Cordon's certificate authority and the
// registry of devices.
//
// Input: enrolments by operators and certificate requests by devices. Output:
// certificates whose URI SAN urn:cordon:device:<id> is the device's name, the
// key-value bucket "device", and a control record on the FLEET log for every
// change, so that the detector learns of it in stream order.
//
// A change is written to the bucket first and to the log second. A record that
// is missing after a crash is published at the next start, because the
// position up to which changes are on the log is kept in bucket "position".
package identity
