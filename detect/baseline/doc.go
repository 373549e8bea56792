// Package baseline learns what is normal for one stream (one metric of one
// device) and says how improbable a reading is. It is pure, keeps a few
// hundred bytes per stream and takes readings one at a time.
//
// The mechanism: a robust level and one mean per hour of the device's local
// day give an expected centre; the residual and its slow mean each fall into
// a histogram whose range is learned on line. A reading's tail probability in
// a histogram is the mass at least as rare as its own bin (the
// highest-density-region p-value, Hyndman 1996; a conformal p-value with
// density as score, Laxhammar & Falkman 2014), continued outside the support
// by an exponential tail whose scale is the mean excess over a high quantile
// (peaks over threshold; Siffer et al. 2017 use the general Pareto form). The
// residual sees jumps, the slow mean sees shifts and drifts.
//
// Learning: the daily cycle first, then the histograms. A stream is ready
// when it has enough samples and has seen its day once. Outliers are clipped
// before they teach level, scale or cycle; a value held back (the device is
// quarantined) teaches nothing.
package baseline
