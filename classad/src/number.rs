//! Numbers as text, as C's `printf` and `strtod` have them.

/// `%lld`
pub(crate) fn push_int(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// Sixteen digits and the decimal exponent, exactly rounded, for numbers of a usual size.
///
/// Significand times a power of ten fits into 128 bits then, and the rest is a shift. The general way through the
/// formatter takes ten times as long, and slot ads are full of load averages.
fn sixteen_digits(value: f64) -> Option<(u64, i32)> {
    let bits = value.to_bits();
    let shift = 1075 - (bits >> 52 & 0x7FF) as i32;
    let significand = u128::from(bits & ((1 << 52) - 1) | 1 << 52);
    if !(1..=126).contains(&shift) || !(1e-6..1e15).contains(&value.abs()) {
        return None;
    }
    let mut exponent = value.abs().log10().floor() as i32;
    // The logarithm may be off by one.
    for _ in 0..3 {
        let scale = u32::try_from(15 - exponent)
            .ok()
            .filter(|&scale| scale <= 22)?;
        let scaled = significand * 10u128.pow(scale);
        let (quotient, rest) = (scaled >> shift, scaled & ((1 << shift) - 1));
        let half = 1u128 << (shift - 1);
        let digits = quotient + u128::from(rest > half || (rest == half && quotient & 1 == 1));
        if digits >= 10_000_000_000_000_000 {
            exponent += 1;
        } else if digits < 1_000_000_000_000_000 {
            exponent -= 1;
        } else {
            return Some((digits as u64, exponent));
        }
    }
    None
}

/// Digits and decimal exponent of a finite number, rounded to `precision` digits.
fn digits(value: f64, precision: usize) -> (Vec<u8>, i32) {
    if precision == 16
        && let Some((digits, exponent)) = sixteen_digits(value)
    {
        let mut out = Vec::with_capacity(20);
        push_int(&mut out, digits as i64);
        return (out, exponent);
    }
    let text = format!("{:.*e}", precision - 1, value.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits = mantissa.bytes().filter(|b| *b != b'.').collect();
    (digits, exponent.parse().unwrap_or(0))
}

fn push_exponent_part(out: &mut Vec<u8>, letter: u8, exponent: i32) {
    out.push(letter);
    out.push(if exponent < 0 { b'-' } else { b'+' });
    if exponent.abs() < 10 {
        out.push(b'0');
    }
    push_int(out, i64::from(exponent.abs()));
}

/// `%1.15E`
pub(crate) fn push_exponent(out: &mut Vec<u8>, value: f64) {
    let (digits, exponent) = digits(value, 16);
    if value < 0.0 {
        out.push(b'-');
    }
    out.push(digits[0]);
    out.push(b'.');
    out.extend_from_slice(&digits[1..]);
    push_exponent_part(out, b'E', exponent);
}

/// `%.16G`, with `.0` if that looks like an integer.
pub(crate) fn push_short(out: &mut Vec<u8>, value: f64) {
    let from = out.len();
    push_general(out, value, 16, b'E');
    if !out[from..].iter().any(|b| matches!(b, b'.' | b'E')) {
        out.extend_from_slice(b".0");
    }
}

/// `%g` with a precision.
pub(crate) fn push_general(out: &mut Vec<u8>, value: f64, precision: usize, letter: u8) {
    let (mut digits, exponent) = digits(value, precision);
    while digits.len() > 1 && digits.last() == Some(&b'0') {
        digits.pop();
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if exponent < -4 || exponent >= precision as i32 {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        push_exponent_part(out, letter, exponent);
    } else if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + (-exponent - 1) as usize, b'0');
        out.extend_from_slice(&digits);
    } else {
        let whole = exponent as usize + 1;
        if digits.len() <= whole {
            digits.resize(whole, b'0');
            out.extend_from_slice(&digits);
        } else {
            out.extend_from_slice(&digits[..whole]);
            out.push(b'.');
            out.extend_from_slice(&digits[whole..]);
        }
    }
}

/// `strtod`: the longest number at the start of the text after white space, and how many bytes it took.
pub(crate) fn strtod(text: &[u8]) -> Option<(f64, usize)> {
    let space = text
        .iter()
        .take_while(|b| b.is_ascii_whitespace() || **b == 11)
        .count();
    let body = &text[space..];
    let (negative, sign) = match body.first() {
        Some(b'-') => (true, 1),
        Some(b'+') => (false, 1),
        _ => (false, 0),
    };
    let unsigned = &body[sign..];
    let (value, len) = special(unsigned)
        .or_else(|| hexadecimal(unsigned))
        .or_else(|| decimal(unsigned))?;
    Some((if negative { -value } else { value }, space + sign + len))
}

fn special(text: &[u8]) -> Option<(f64, usize)> {
    let starts =
        |word: &[u8]| text.len() >= word.len() && text[..word.len()].eq_ignore_ascii_case(word);
    if starts(b"infinity") {
        return Some((f64::INFINITY, 8));
    }
    if starts(b"inf") {
        return Some((f64::INFINITY, 3));
    }
    if !starts(b"nan") {
        return None;
    }
    let mut len = 3;
    if text.get(3) == Some(&b'(') {
        let inner = text[4..]
            .iter()
            .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
            .count();
        if text.get(4 + inner) == Some(&b')') {
            len = 5 + inner;
        }
    }
    Some((f64::NAN, len))
}

fn decimal(text: &[u8]) -> Option<(f64, usize)> {
    let count = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    let whole = count(text);
    let mut len = whole;
    let mut fraction = 0;
    if text.get(len) == Some(&b'.') {
        fraction = count(&text[len + 1..]);
        if whole + fraction > 0 {
            len += 1 + fraction;
        }
    }
    if whole + fraction == 0 {
        return None;
    }
    if matches!(text.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(len + 1), Some(b'+' | b'-')));
        let digits = count(text.get(len + 1 + sign..).unwrap_or(&[]));
        if digits > 0 {
            len += 1 + sign + digits;
        }
    }
    let number = std::str::from_utf8(&text[..len]).ok()?;
    Some((number.parse().ok()?, len))
}

/// `0x1.8p3`. Digits beyond the 64th bit are not rounded but dropped, except that they still count as non-zero.
fn hexadecimal(text: &[u8]) -> Option<(f64, usize)> {
    let digit = |b: u8| (b as char).to_digit(16);
    if text.len() < 3 || text[0] != b'0' || !text[1].eq_ignore_ascii_case(&b'x') {
        return None;
    }
    let (mut bits, mut exponent, mut seen, mut len, mut point) = (0u64, 0i64, false, 2, false);
    while let Some(&byte) = text.get(len) {
        if byte == b'.' && !point {
            point = true;
        } else if let Some(value) = digit(byte) {
            seen = true;
            if bits >> 60 == 0 {
                bits = bits << 4 | u64::from(value);
                exponent -= if point { 4 } else { 0 };
            } else {
                bits |= u64::from(value != 0);
                exponent += if point { 0 } else { 4 };
            }
        } else {
            break;
        }
        len += 1;
    }
    if !seen {
        return Some((0.0, 1));
    }
    if text[len - 1] == b'.' && len == 3 {
        return Some((0.0, 1));
    }
    if matches!(text.get(len), Some(b'p' | b'P')) {
        let sign = usize::from(matches!(text.get(len + 1), Some(b'+' | b'-')));
        let digits = text
            .get(len + 1 + sign..)
            .unwrap_or(&[])
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count();
        if digits > 0 {
            let end = len + 1 + sign + digits;
            let number = std::str::from_utf8(&text[len + 1 + sign..end])
                .ok()?
                .parse()
                .unwrap_or(100_000i64);
            exponent = exponent.saturating_add(if text[len + 1] == b'-' {
                -number
            } else {
                number
            });
            len = end;
        }
    }
    let exponent = exponent.clamp(-2000, 2000) as i32;
    // In two steps, so that neither power overflows where the product does not.
    let half = exponent / 2;
    Some((
        bits as f64 * 2f64.powi(half) * 2f64.powi(exponent - half),
        len,
    ))
}

/// The conversion from double to 64-bit integer as x86 does it: what does not fit is the smallest integer.
pub(crate) fn to_int(value: f64) -> i64 {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value) {
        value as i64
    } else {
        i64::MIN
    }
}

/// The same to 32 bits.
pub(crate) fn to_int32(value: f64) -> i32 {
    if value > -2_147_483_649.0 && value < 2_147_483_648.0 {
        value as i32
    } else {
        i32::MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(value: f64) -> String {
        let mut out = Vec::new();
        push_short(&mut out, value);
        String::from_utf8(out).expect("digits")
    }

    #[test]
    fn reals_are_printed_as_printf_prints_them() {
        for (value, text) in [
            (2.0, "2.0"),
            (0.1, "0.1"),
            (-1.5, "-1.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1E+16"),
            (1e-5, "1E-05"),
            (0.0001, "0.0001"),
            (98.04, "98.04000000000001"),
            (123456.789, "123456.789"),
            (1.0 / 3.0, "0.3333333333333333"),
            (0.0093056845607696, "0.009305684560769601"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn the_short_way_to_sixteen_digits_is_that_of_the_formatter() {
        let mut bits = 0x9E37_79B9_7F4A_7C15u64;
        for i in 0..20_000 {
            bits = bits.wrapping_mul(0x2545_F491_4F6C_DD1D).rotate_left(17) ^ i;
            let value = f64::from_bits(bits >> 12 | (1005 + bits % 70) << 52);
            if let Some((digits, exponent)) = sixteen_digits(value) {
                let text = format!("{value:.15e}").replace('.', "");
                assert_eq!(format!("{digits}e{exponent}"), text);
            }
        }
    }

    #[test]
    fn strtod_takes_the_longest_number() {
        for (text, value, len) in [
            ("12abc", 12.0, 2),
            ("0x1F", 31.0, 4),
            ("1e3x", 1000.0, 3),
            ("1e", 1.0, 1),
            (" -.5", -0.5, 4),
            ("0x", 0.0, 1),
        ] {
            assert_eq!(strtod(text.as_bytes()), Some((value, len)), "{text}");
        }
        assert_eq!(strtod(b"abc"), None);
        assert_eq!(strtod(b"."), None);
    }
}
