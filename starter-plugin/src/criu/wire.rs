//! Protobuf's wire format, as far as CRIU's images need it: what a message holds is walked, not decoded, so that
//! fields of newer CRIUs stay as they are.

/// `message` without the field at the end of `path`, a list of field numbers.
pub(super) fn without_field(message: &[u8], path: &[u64]) -> Result<Vec<u8>, &'static str> {
    let (&wanted, deeper) = path.split_first().expect("a path has at least one field");
    let mut out = Vec::with_capacity(message.len());
    let mut rest = message;
    while !rest.is_empty() {
        let (key, after_key) = varint(rest)?;
        let (body, after) = match key & 7 {
            0 => {
                let (_, after) = varint(after_key)?;
                (&after_key[..0], after)
            }
            1 => (&after_key[..0], after_key.get(8..).ok_or("cut in a field")?),
            2 => {
                let (length, body) = varint(after_key)?;
                let length = usize::try_from(length).map_err(|_| "wrong length")?;
                if length > body.len() {
                    return Err("cut in a field");
                }
                body.split_at(length)
            }
            5 => (&after_key[..0], after_key.get(4..).ok_or("cut in a field")?),
            _ => return Err("unknown wire type"),
        };
        if key >> 3 != wanted {
            out.extend_from_slice(&rest[..rest.len() - after.len()]);
        } else if !deeper.is_empty() {
            if key & 7 != 2 {
                return Err("a message is expected");
            }
            let body = without_field(body, deeper)?;
            push_varint(&mut out, key);
            push_varint(&mut out, body.len() as u64);
            out.extend_from_slice(&body);
        }
        rest = after;
    }
    Ok(out)
}

pub(super) fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), &'static str> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    Err("cut in a number")
}

pub(super) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The number in field `wanted` of `message`, or the message in it: what its key says.
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The last value of a field, as protobuf has it; none where it is absent.
pub(super) fn field(message: &[u8], wanted: u64) -> Result<Option<Value<'_>>, &'static str> {
    let mut found = None;
    let mut rest = message;
    while !rest.is_empty() {
        let (key, after_key) = varint(rest)?;
        let (value, after) = match key & 7 {
            0 => {
                let (number, after) = varint(after_key)?;
                (Some(Value::Number(number)), after)
            }
            1 => (None, after_key.get(8..).ok_or("cut in a field")?),
            2 => {
                let (length, body) = varint(after_key)?;
                let length = usize::try_from(length).map_err(|_| "wrong length")?;
                let (body, after) = body.split_at_checked(length).ok_or("cut in a field")?;
                (Some(Value::Bytes(body)), after)
            }
            5 => (None, after_key.get(4..).ok_or("cut in a field")?),
            _ => return Err("unknown wire type"),
        };
        if key >> 3 == wanted && value.is_some() {
            found = value;
        }
        rest = after;
    }
    Ok(found)
}
