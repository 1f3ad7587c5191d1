//! Cells in PostgreSQL's binary protocol, for `COPY` and for arrays alike.

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use s3rep_core::{Error, ErrorKind, Operation, Result, RowChange, Scope, Table};
use s3rep_sql::{Cell, ColumnType, Target};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// Microseconds from 1970 to 2000, where PostgreSQL's clock begins.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const EPOCH_DAYS: i32 = 10_957;
/// Beyond these `timestamptz` has no values (294276 AD) and dates neither.
const LAST_MICROS: i64 = 9_223_371_331_200_000_000 - EPOCH_MICROS;
const FIRST_MICROS: i64 = -210_866_803_200_000_000;

/// The type of values on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Text,
    Int2,
    Int4,
    Int8,
    Double,
    Single,
    Numeric,
    Boolean,
    Json,
    Jsonb,
    Uuid,
    Inet,
    Timestamp,
    Date,
    Time,
}

impl Wire {
    /// `None` for types that are not written.
    pub(crate) fn of(column: ColumnType) -> Option<Self> {
        Some(match column {
            ColumnType::Text { .. } => Self::Text,
            ColumnType::Integer { max, .. } if max <= i16::MAX.into() => Self::Int2,
            ColumnType::Integer { max, .. } if max <= i32::MAX.into() => Self::Int4,
            ColumnType::Integer { .. } => Self::Int8,
            ColumnType::Double => Self::Double,
            ColumnType::Single => Self::Single,
            ColumnType::Decimal { .. } => Self::Numeric,
            ColumnType::Boolean => Self::Boolean,
            ColumnType::Json => Self::Json,
            ColumnType::JsonBinary => Self::Jsonb,
            ColumnType::Uuid => Self::Uuid,
            ColumnType::Address => Self::Inet,
            ColumnType::Timestamp { .. } => Self::Timestamp,
            ColumnType::Date => Self::Date,
            ColumnType::Time { .. } => Self::Time,
            _ => return None,
        })
    }

    /// The array that carries such values as one parameter.
    pub(crate) const fn array(self) -> (Type, &'static str) {
        match self {
            Self::Text => (Type::TEXT_ARRAY, "text[]"),
            Self::Int2 => (Type::INT2_ARRAY, "int2[]"),
            Self::Int4 => (Type::INT4_ARRAY, "int4[]"),
            Self::Int8 => (Type::INT8_ARRAY, "int8[]"),
            Self::Double => (Type::FLOAT8_ARRAY, "float8[]"),
            Self::Single => (Type::FLOAT4_ARRAY, "float4[]"),
            Self::Numeric => (Type::NUMERIC_ARRAY, "numeric[]"),
            Self::Boolean => (Type::BOOL_ARRAY, "bool[]"),
            Self::Json => (Type::JSON_ARRAY, "json[]"),
            Self::Jsonb => (Type::JSONB_ARRAY, "jsonb[]"),
            Self::Uuid => (Type::UUID_ARRAY, "uuid[]"),
            Self::Inet => (Type::INET_ARRAY, "inet[]"),
            Self::Timestamp => (Type::TIMESTAMPTZ_ARRAY, "timestamptz[]"),
            Self::Date => (Type::DATE_ARRAY, "date[]"),
            Self::Time => (Type::TIME_ARRAY, "time[]"),
        }
    }

    const fn element(self) -> Type {
        match self {
            Self::Text => Type::TEXT,
            Self::Int2 => Type::INT2,
            Self::Int4 => Type::INT4,
            Self::Int8 => Type::INT8,
            Self::Double => Type::FLOAT8,
            Self::Single => Type::FLOAT4,
            Self::Numeric => Type::NUMERIC,
            Self::Boolean => Type::BOOL,
            Self::Json => Type::JSON,
            Self::Jsonb => Type::JSONB,
            Self::Uuid => Type::UUID,
            Self::Inet => Type::INET,
            Self::Timestamp => Type::TIMESTAMPTZ,
            Self::Date => Type::DATE,
            Self::Time => Type::TIME,
        }
    }

    /// Writes a cell with its length before it.
    fn put(self, cell: &Cell<'_>, out: &mut BytesMut) -> Result<(), &'static str> {
        if *cell == Cell::Null {
            out.put_i32(-1);
            return Ok(());
        }
        let start = out.len();
        out.put_i32(0);
        self.put_value(cell, out)?;
        let length = i32::try_from(out.len() - start - 4).map_err(|_| "the value has more than 2 GB")?;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    fn put_value(self, cell: &Cell<'_>, out: &mut BytesMut) -> Result<(), &'static str> {
        const RANGE: &str = "the value is out of the range of the column";
        match (self, cell) {
            (Self::Text, Cell::Text(text)) => out.put_slice(text.as_bytes()),
            (Self::Int2, Cell::Integer(integer)) => out.put_i16(i16::try_from(*integer).map_err(|_| RANGE)?),
            (Self::Int4, Cell::Integer(integer)) => out.put_i32(i32::try_from(*integer).map_err(|_| RANGE)?),
            (Self::Int8, Cell::Integer(integer)) => out.put_i64(i64::try_from(*integer).map_err(|_| RANGE)?),
            (Self::Double, Cell::Double(double)) => out.put_f64(*double),
            (Self::Single, Cell::Double(double)) => out.put_f32(*double as f32),
            (Self::Numeric, Cell::Decimal(text)) => put_numeric(text, out).ok_or(RANGE)?,
            (Self::Boolean, Cell::Boolean(truth)) => out.put_u8((*truth).into()),
            (Self::Json, Cell::Json(value)) => put_json(value, out),
            (Self::Jsonb, Cell::Json(value)) => {
                out.put_u8(1);
                put_json(value, out);
            }
            (Self::Uuid, Cell::Uuid(uuid)) => out.put_u128(*uuid),
            (Self::Inet, Cell::Address(address, prefix)) => put_address(*address, *prefix, out),
            (Self::Timestamp, Cell::Timestamp(micros)) if (FIRST_MICROS..LAST_MICROS).contains(micros) => {
                out.put_i64(micros - EPOCH_MICROS);
            }
            (Self::Timestamp, Cell::Timestamp(_)) => return Err(RANGE),
            (Self::Date, Cell::Date(days)) => out.put_i32(days - EPOCH_DAYS),
            (Self::Time, Cell::Time(micros)) => out.put_i64(*micros),
            _ => return Err("the value is not of the kind of the column"),
        }
        Ok(())
    }
}

fn put_json(value: &serde_json::Value, out: &mut BytesMut) {
    // Writing into memory cannot fail, and every value is valid JSON.
    let _ = serde_json::to_writer(out.writer(), value);
}

fn put_address(address: IpAddr, prefix: u8, out: &mut BytesMut) {
    let (family, octets): (u8, &[u8]) = match &address {
        IpAddr::V4(v4) => (2, &v4.octets()),
        IpAddr::V6(v6) => (3, &v6.octets()),
    };
    out.put_slice(&[family, prefix, 0, octets.len() as u8]);
    out.put_slice(octets);
}

/// Groups of four decimal digits, with the weight of the first.
fn put_numeric(text: &str, out: &mut BytesMut) -> Option<()> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (0x4000_u16, digits),
        None => (0, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let pad = (4 - whole.len() % 4) % 4;
    let mut all = "0".repeat(pad) + whole + fraction;
    all.push_str(&"0".repeat((4 - fraction.len() % 4) % 4));
    let mut groups = Vec::with_capacity(all.len() / 4);
    for group in all.as_bytes().chunks(4) {
        groups.push(std::str::from_utf8(group).ok()?.parse::<i16>().ok()?);
    }
    let mut weight = i16::try_from((pad + whole.len()) / 4).ok()? - 1;
    let leading = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..leading);
    weight -= i16::try_from(leading).ok()?;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let is_zero = groups.is_empty();
    out.put_i16(i16::try_from(groups.len()).ok()?);
    out.put_i16(if is_zero { 0 } else { weight });
    out.put_u16(if is_zero { 0 } else { sign });
    out.put_u16(u16::try_from(fraction.len()).ok()?);
    groups.iter().for_each(|group| out.put_i16(*group));
    Some(())
}

/// Rows of one table on their way.
pub(crate) struct Rows<'a> {
    pub(crate) table: &'a Table,
    pub(crate) targets: &'a [Target],
    pub(crate) wires: &'a [Wire],
}

impl Rows<'_> {
    /// Writes the fields of a change, in the order of the targets.
    fn fields(
        &self,
        change: &RowChange,
        mut each: impl FnMut(usize, Wire, &Cell<'_>) -> Result<(), &'static str>,
    ) -> Result<()> {
        let at =
            |error: Error| error.with_context("table", &self.table.name).with_context("key", &change.key);
        if change.record.is_none() && change.operation != Operation::Delete {
            let error = Error::new(ErrorKind::InvalidValue, "the change has no record");
            return Err(at(error.with_scope(Scope::Record)));
        }
        for (i, (target, wire)) in self.targets.iter().zip(self.wires).enumerate() {
            let cell = target.cell(&self.table.schema, change).map_err(at)?;
            let refused = |reason| {
                at(Error::new(ErrorKind::InvalidValue, reason).with_context("column", &target.name))
                    .with_scope(Scope::Record)
            };
            if cell == Cell::Null && !target.nullable {
                return Err(refused("the column accepts no null"));
            }
            each(i, *wire, &cell).map_err(refused)?;
        }
        Ok(())
    }

    /// A row of `COPY … BINARY`. After an error the buffer is as it was before.
    pub(crate) fn tuple(&self, change: &RowChange, out: &mut BytesMut) -> Result<()> {
        let start = out.len();
        out.put_i16(self.targets.len() as i16);
        let put = self.fields(change, |_, wire, cell| wire.put(cell, out));
        if put.is_err() {
            out.truncate(start);
        }
        put
    }

    /// One array for each column.
    pub(crate) fn arrays(&self, changes: &[&RowChange]) -> Result<Vec<Array>> {
        let mut arrays: Vec<_> =
            self.wires.iter().map(|wire| ArrayBuilder::new(*wire, changes.len())).collect();
        for change in changes {
            self.fields(change, |i, wire, cell| arrays[i].push(wire, cell))?;
        }
        Ok(arrays.into_iter().map(ArrayBuilder::finish).collect())
    }
}

/// The beginning and the end of a stream of `COPY … BINARY`.
pub(crate) const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
pub(crate) const COPY_END: i16 = -1;

struct ArrayBuilder {
    bytes: BytesMut,
    has_null: bool,
}

impl ArrayBuilder {
    fn new(wire: Wire, length: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(20 + length * 16);
        bytes.put_i32(1);
        bytes.put_i32(0);
        bytes.put_u32(wire.element().oid());
        bytes.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
        bytes.put_i32(1);
        Self { bytes, has_null: false }
    }

    fn push(&mut self, wire: Wire, cell: &Cell<'_>) -> Result<(), &'static str> {
        self.has_null |= *cell == Cell::Null;
        wire.put(cell, &mut self.bytes)
    }

    fn finish(mut self) -> Array {
        if self.has_null {
            self.bytes[4..8].copy_from_slice(&1_i32.to_be_bytes());
        }
        Array(self.bytes.freeze())
    }
}

/// A parameter that is encoded already.
#[derive(Debug)]
pub(crate) struct Array(Bytes);

impl Array {
    /// Texts, for keys.
    pub(crate) fn of_texts<'a>(texts: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let mut array = ArrayBuilder::new(Wire::Text, texts.len());
        for text in texts {
            // Text is put as it is.
            let _ = array.push(Wire::Text, &Cell::Text(text.into()));
        }
        array.finish()
    }
}

impl ToSql for Array {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A value as it came, for [`micros`] and [`days`].
pub(crate) struct Raw(i64);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(match raw.len() {
            4 => i32::from_be_bytes(raw.try_into()?).into(),
            _ => i64::from_be_bytes(raw.try_into()?),
        }))
    }

    fn accepts(kind: &Type) -> bool {
        [Type::TIMESTAMPTZ, Type::TIMESTAMP, Type::DATE, Type::TIME].contains(kind)
    }
}

impl Raw {
    /// What the database sent as a cell of this column.
    pub(crate) fn cell(&self, wire: Wire) -> Cell<'static> {
        match wire {
            Wire::Timestamp => Cell::Timestamp(self.0.saturating_add(EPOCH_MICROS)),
            Wire::Date => Cell::Date(i32::try_from(self.0).unwrap_or(i32::MAX).saturating_add(EPOCH_DAYS)),
            _ => Cell::Time(self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(text: &str) -> Vec<i16> {
        let mut out = BytesMut::new();
        put_numeric(text, &mut out).unwrap();
        out.chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect()
    }

    #[test]
    fn numerics_are_groups_of_four_digits() {
        // Number of groups, weight, sign, digits after the point, groups: as PostgreSQL sends them.
        assert_eq!(numeric("0"), [0, 0, 0, 0]);
        assert_eq!(numeric("1"), [1, 0, 0, 0, 1]);
        assert_eq!(numeric("10000"), [1, 1, 0, 0, 1]);
        assert_eq!(numeric("-19.99"), [2, 0, 0x4000, 2, 19, 9900]);
        assert_eq!(numeric("0.0000001"), [1, -2, 0, 7, 10]);
        assert_eq!(numeric("12345678.9"), [3, 1, 0, 1, 1234, 5678, 9000]);
    }
}
