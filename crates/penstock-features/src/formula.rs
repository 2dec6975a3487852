//! Formulas: the tree compiled to a flat program over columns of f64. NaN is null and spreads.

use crate::spec::Tree;

/// Deep enough for any formula a person writes; shallow enough for the compiler's own recursion.
const MAX_DEPTH: usize = 200;

type Unary = fn(f64) -> f64;
type Binary = fn(f64, f64) -> f64;

#[derive(Debug, Clone, Copy)]
enum Op {
    Num(f64),
    Arg(usize),
    One(Unary),
    Two(Binary),
}

/// Steps in postfix order; the check at compile time proves that the stack holds what each takes.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    ops: Vec<Op>,
}

impl Program {
    pub(crate) fn compile(tree: &Tree, args: usize) -> Result<Self, String> {
        let mut program = Self { ops: Vec::new() };
        program.add(tree, args, 0)?;
        Ok(program)
    }

    fn add(&mut self, tree: &Tree, inputs: usize, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("the formula is nested more than {MAX_DEPTH} deep"));
        }
        let (name, args) = match tree {
            Tree::Num { num } => {
                self.ops.push(Op::Num(*num));
                return Ok(());
            }
            Tree::Arg { arg } if *arg < inputs => {
                self.ops.push(Op::Arg(*arg));
                return Ok(());
            }
            Tree::Arg { arg } => return Err(format!("the formula has no argument {arg}")),
            Tree::Op { op, args } => (op.as_str(), args),
            Tree::Call { call, args } => (call.as_str(), args),
        };
        let wrong = |takes: &str| Err(format!("'{name}' takes {takes}, not {}", args.len()));
        if let Some(one) = one(name, args.len()) {
            let [arg] = args.as_slice() else {
                return wrong("one argument");
            };
            self.add(arg, inputs, depth + 1)?;
            self.ops.push(Op::One(one));
            return Ok(());
        }
        let Some((two, many)) = two(name) else {
            return Err(format!("'{name}' is not a function of formulas"));
        };
        match args.as_slice() {
            [first, rest @ ..] if rest.len() == 1 || many => {
                self.add(first, inputs, depth + 1)?;
                for arg in rest {
                    self.add(arg, inputs, depth + 1)?;
                    self.ops.push(Op::Two(two));
                }
                Ok(())
            }
            _ => wrong(if many {
                "one argument or more"
            } else {
                "two arguments"
            }),
        }
    }

    /// Evaluate over `n` rows; `inputs[i]` is argument `i`, `stack` is scratch. The result is appended to `out`.
    pub(crate) fn run(
        &self,
        n: usize,
        inputs: &[&[f64]],
        stack: &mut Vec<Vec<f64>>,
        out: &mut Vec<f64>,
    ) {
        let mut top = 0;
        for op in &self.ops {
            match op {
                Op::Num(_) | Op::Arg(_) => {
                    if stack.len() == top {
                        stack.push(Vec::new());
                    }
                    stack[top].clear();
                    match op {
                        Op::Arg(arg) => stack[top].extend_from_slice(&inputs[*arg][..n]),
                        Op::Num(number) => stack[top].resize(n, *number),
                        _ => {}
                    }
                    top += 1;
                }
                Op::One(function) => stack[top - 1].iter_mut().for_each(|x| *x = function(*x)),
                Op::Two(function) => {
                    let (left, right) = stack.split_at_mut(top - 1);
                    top -= 1;
                    for (x, y) in left[top - 1].iter_mut().zip(&right[0]) {
                        *x = function(*x, *y);
                    }
                }
            }
        }
        out.extend_from_slice(&stack[0][..n]);
    }
}

fn one(name: &str, arity: usize) -> Option<Unary> {
    Some(match name {
        "neg" => |x| -x,
        "-" if arity == 1 => |x| -x,
        "+" if arity == 1 => |x| x,
        "abs" => libm::fabs,
        "sqrt" => libm::sqrt,
        "exp" => libm::exp,
        "log" | "ln" => libm::log,
        "log2" => libm::log2,
        "log10" => libm::log10,
        "log1p" => libm::log1p,
        "expm1" => libm::expm1,
        "floor" => libm::floor,
        "ceil" => libm::ceil,
        "trunc" => libm::trunc,
        "round" => libm::round,
        "sin" => libm::sin,
        "cos" => libm::cos,
        "tan" => libm::tan,
        "tanh" => libm::tanh,
        "sign" => |x| {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x
            }
        },
        _ => return None,
    })
}

/// The function, and whether it folds over any number of arguments.
fn two(name: &str) -> Option<(Binary, bool)> {
    Some(match name {
        "+" => (|x, y| x + y, false),
        "-" => (|x, y| x - y, false),
        "*" => (|x, y| x * y, false),
        "/" => (|x, y| x / y, false),
        // The remainder of C: it has the sign of the dividend.
        "%" | "mod" => (libm::fmod, false),
        "pow" | "^" | "**" => (pow, false),
        "min" => (min, true),
        "max" => (max, true),
        _ => return None,
    })
}

/// IEEE gives pow(NaN, 0) = pow(1, NaN) = 1; here a null spreads.
fn pow(x: f64, y: f64) -> f64 {
    if x.is_nan() || y.is_nan() {
        f64::NAN
    } else {
        libm::pow(x, y)
    }
}

/// The first of equals, and NaN if either is.
fn min(x: f64, y: f64) -> f64 {
    if x.is_nan() || y.is_nan() {
        f64::NAN
    } else if y < x {
        y
    } else {
        x
    }
}

fn max(x: f64, y: f64) -> f64 {
    if x.is_nan() || y.is_nan() {
        f64::NAN
    } else if y > x {
        y
    } else {
        x
    }
}
