//! The inverse of the normal distribution from basic IEEE operations alone, so that init is the same bits everywhere.

/// ln(x) of a positive normal `x`, within 2 units in the last place: exponent, then the series of atanh.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) as i64 - 1023) as f64;
    let mut m = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1.0;
    }
    let t = (m - 1.0) / (m + 1.0);
    let square = t * t;
    // |t| <= 0.1716: the first term left out is below 2^-55 of the sum.
    let mut sum = 0.0;
    let mut odd = 21.0;
    while odd >= 1.0 {
        sum = sum * square + 1.0 / odd;
        odd -= 2.0;
    }
    exponent * std::f64::consts::LN_2 + 2.0 * t * sum
}

fn ratio(r: f64, above: &[f64; 8], below: &[f64; 8]) -> f64 {
    let horner = |c: &[f64; 8]| c.iter().fold(0.0, |sum, &c| sum * r + c);
    horner(above) / horner(below)
}

/// The quantile of the standard normal distribution at `p` in (0, 1): Wichura's AS 241 (PPND16).
pub fn quantile(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        return q * ratio(0.180625 - q * q, &MIDDLE.0, &MIDDLE.1);
    }
    let tail = if q < 0.0 { p } else { 1.0 - p };
    let r = (-ln(tail)).sqrt();
    let x = if r <= 5.0 {
        ratio(r - 1.6, &SHOULDER.0, &SHOULDER.1)
    } else {
        ratio(r - 5.0, &FAR.0, &FAR.1)
    };
    if q < 0.0 { -x } else { x }
}

/// Coefficients above and below the line, highest power first.
type Coefficients = ([f64; 8], [f64; 8]);
#[rustfmt::skip]
const MIDDLE: Coefficients = (
    [2509.0809287301227, 33430.57558358813, 67265.7709270087, 45921.95393154987,
     13731.69376550946, 1971.5909503065513, 133.14166789178438, 3.3871328727963665],
    [5226.495278852854, 28729.085735721943, 39307.89580009271, 21213.794301586597,
     5394.196021424751, 687.1870074920579, 42.31333070160091, 1.0],
);
#[rustfmt::skip]
const SHOULDER: Coefficients = (
    [0.0007745450142783414, 0.022723844989269184, 0.2417807251774506, 1.2704582524523684,
     3.6478483247632045, 5.769497221460691, 4.630337846156546, 1.4234371107496835],
    [1.0507500716444169e-09, 0.0005475938084995345, 0.015198666563616457, 0.14810397642748008,
     0.6897673349851, 1.6763848301838038, 2.053191626637759, 1.0],
);
#[rustfmt::skip]
const FAR: Coefficients = (
    [2.0103343992922881e-07, 2.7115555687434876e-05, 0.0012426609473880784, 0.026532189526576124,
     0.29656057182850487, 1.7848265399172913, 5.463784911164114, 6.657904643501103],
    [2.0442631033899397e-15, 1.421511758316446e-07, 1.8463183175100548e-05, 0.0007868691311456133,
     0.014875361290850615, 0.1369298809227358, 0.599832206555888, 1.0],
);
