//! Loops over many numbers, compiled twice: for every x86-64, and for machines with AVX2, which are found at run time.
//!
//! Both give the same bits: they are the same IEEE operations in the same order, and nothing is fused.

use crate::logarithm;

/// Define `$name` as `$body`, in the form that suits the machine.
macro_rules! wide {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) = $body:ident) => {
        $(#[$doc])*
        pub(crate) fn $name($($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) {
                    $body($($argument),*);
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the machine has AVX2.
                    return unsafe { avx2($($argument),*) };
                }
            }
            $body($($argument),*);
        }
    };
}

wide! {
    /// Append the number of `bounds` <= x for each x of `numbers`.
    count_bounds(numbers: &[f64], bounds: &[f64], out: &mut Vec<u64>) = count_bounds_loop
}
wide! {
    /// Append the natural logarithm of each of `numbers`.
    logarithms(numbers: &[f64], out: &mut Vec<f64>) = logarithms_loop
}

#[inline(always)]
fn count_bounds_loop(numbers: &[f64], bounds: &[f64], out: &mut Vec<u64>) {
    let start = out.len();
    out.resize(start + numbers.len(), 0);
    let counts = &mut out[start..];
    for bound in bounds {
        for (count, x) in counts.iter_mut().zip(numbers) {
            *count += u64::from(*bound <= *x);
        }
    }
}

#[inline(always)]
fn logarithms_loop(numbers: &[f64], out: &mut Vec<f64>) {
    let start = out.len();
    out.resize(start + numbers.len(), 0.0);
    let results = &mut out[start..];
    for (result, x) in results.iter_mut().zip(numbers) {
        *result = logarithm::of_normal(*x);
    }
    for (result, x) in results.iter_mut().zip(numbers) {
        if logarithm::is_special(*x) {
            *result = libm::log(*x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_counted_alike_in_blocks_and_in_what_is_left() {
        let bounds = [-1.0, 0.0, 0.5, 1e300];
        let numbers = [
            -2.0,
            -1.0,
            -0.0,
            0.0,
            0.25,
            0.5,
            7.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            1e300,
            0.5,
        ];
        let mut counted = vec![9];
        count_bounds(&numbers, &bounds, &mut counted);
        assert_eq!(counted, [9, 0, 1, 2, 2, 2, 3, 3, 4, 0, 4, 3]);
    }
}
