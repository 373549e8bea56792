// Package joint learns how the metrics of one device move together and says
// when they stop doing so, though each alone may look usual. It is pure and
// takes one row of values at a time.
//
// The mechanism: every metric is smoothed; metrics that wandered while
// learning are left out, as their future range can't be known from it; the
// others are standardised by median and MAD, and their correlations, shrunk
// towards none (Ledoit & Wolf 2004 give the reason), make a squared distance
// (Hotelling's T²). A row is strange by the larger of that distance and the
// largest single deviation, both relative to what learning showed. Metrics are
// named by the share of the distance that goes when one is put where the
// others make it expected.
package joint
