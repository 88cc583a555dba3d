//! Reads GGUF files (version 2 and 3): metadata and the places of tensors, every count and size checked against the
//! file before anything is made of it, so that a broken or hostile file costs an error that names the key or tensor.
//!
//! Candle reads GGUF as well, but its errors name neither, one unknown tensor type makes it refuse without saying
//! where, and it divides by an alignment and multiplies dimensions as they come.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Shape};

/// A parsed file over its bytes.
pub(crate) struct Gguf<'a> {
    metadata: HashMap<&'a str, Value<'a>>,
    /// In the order of names, so that complaints are always about the same one.
    tensors: BTreeMap<&'a str, Place>,
    /// Where tensors lie: all that follows the header.
    data: &'a [u8],
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(&'a str),
    Texts(Vec<&'a str>),
    Integers(Vec<i64>),
    /// An array of another type; no key that is read here has one.
    OtherArray,
}

/// Where a tensor lies.
#[derive(Debug, Clone)]
struct Place {
    /// `[rows, columns]` or `[columns]`: the file has them the other way round.
    shape: Vec<usize>,
    kind: GgmlDType,
    /// Bytes from the start of the data.
    from: usize,
    len: usize,
}

const DEFAULT_ALIGNMENT: usize = 32;
const MOST_DIMENSIONS: u32 = 4;

impl<'a> Gguf<'a> {
    /// Parses a file's bytes.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let mut reader = Reader { bytes, at: 0 };
        if reader.take(4, "the magic number")? != b"GGUF" {
            return Err(
                "this is no GGUF file: it does not begin with `GGUF`; name a .gguf file or a model's folder".into()
            );
        }
        match reader.u32("the version")? {
            2 | 3 => {}
            version => {
                return Err(format!(
                    "GGUF version {version} is not supported; supported: 2 and 3, little-endian; convert the model again"
                ));
            }
        }
        let tensor_count = reader.u64("the number of tensors")?;
        let entry_count = reader.u64("the number of metadata entries")?;
        let metadata = read_metadata(&mut reader, entry_count)?;
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(Value::Integer(n)) if *n > 0 && *n <= 1 << 20 && n & (n - 1) == 0 => *n as usize,
            Some(bad) => return Err(format!("metadata key `general.alignment` = {bad:?} is not a power of two ≤ 2²⁰")),
        };
        let tensors = read_places(&mut reader, tensor_count)?;
        let data = bytes.get(reader.at.next_multiple_of(alignment)..).unwrap_or_default();
        for (name, place) in &tensors {
            if place.from.checked_add(place.len).is_none_or(|end| end > data.len()) {
                return Err(format!(
                    "tensor `{name}` takes bytes {}..+{} of the file's {} bytes of tensors: the file is cut short or \
                     damaged; fetch it again",
                    place.from,
                    place.len,
                    data.len()
                ));
            }
        }
        Ok(Self { metadata, tensors, data })
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.metadata.get(key)
    }

    /// Metadata keys under a prefix, in their order.
    pub(crate) fn keys_under(&self, prefix: &str) -> Vec<&'a str> {
        let mut keys: Vec<&str> = self.metadata.keys().copied().filter(|k| k.starts_with(prefix)).collect();
        keys.sort_unstable();
        keys
    }

    /// An unsigned integer; `None` if the key is missing.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<usize>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Integer(n)) => match usize::try_from(*n) {
                Ok(n) => Ok(Some(n)),
                Err(_) => Err(format!("metadata key `{key}` = {n} is not an unsigned integer of 64 bits")),
            },
            Some(other) => Err(format!("metadata key `{key}` = {} is not an integer", other.shown())),
        }
    }

    /// A number; `None` if the key is missing.
    pub(crate) fn float(&self, key: &str) -> Result<Option<f32>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(x)) => Ok(Some(*x as f32)),
            Some(Value::Integer(n)) => Ok(Some(*n as f32)),
            Some(other) => Err(format!("metadata key `{key}` = {} is not a number", other.shown())),
        }
    }

    /// A text; `None` if the key is missing.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(format!("metadata key `{key}` = {} is not a text", other.shown())),
        }
    }

    /// A list of texts; `None` if the key is missing.
    pub(crate) fn texts(&self, key: &str) -> Result<Option<&[&'a str]>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Texts(texts)) => Ok(Some(texts)),
            Some(other) => Err(format!("metadata key `{key}` = {} is not a list of texts", other.shown())),
        }
    }

    pub(crate) fn tensor_names(&self) -> impl Iterator<Item = &'a str> {
        self.tensors.keys().copied()
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|place| place.shape.as_slice())
    }

    pub(crate) fn kind(&self, name: &str) -> Option<GgmlDType> {
        self.tensors.get(name).map(|place| place.kind)
    }

    /// A tensor of this file.
    pub(crate) fn tensor(&self, name: &str) -> Result<QTensor, String> {
        let (kind, raw) = self.raw(name, None)?;
        quantised_tensor(kind, raw, &self.tensors[name].shape, &Device::Cpu)
            .map_err(|error| format!("tensor `{name}`: {error}"))
    }

    /// A tensor's bytes as they lie in the file; `order` says from which row each of its rows is read (the file's order if
    /// `None`).
    pub(crate) fn raw(&self, name: &str, order: Option<&[usize]>) -> Result<(GgmlDType, Cow<'a, [u8]>), String> {
        let place = self.tensors.get(name).ok_or_else(|| format!("tensor `{name}` is missing"))?;
        let mut raw = Cow::Borrowed(&self.data[place.from..place.from + place.len]);
        if let Some(order) = order {
            let width = place.len / order.len();
            raw = Cow::Owned(order.iter().flat_map(|row| &raw[row * width..(row + 1) * width]).copied().collect());
        }
        Ok((place.kind, raw))
    }
}

/// Candle's tensor of bytes as they lie in a file.
pub(crate) fn quantised_tensor(
    kind: GgmlDType,
    raw: Cow<'_, [u8]>,
    shape: &[usize],
    device: &Device,
) -> candle_core::Result<QTensor> {
    // Candle reads blocks in place, which needs the alignment that an allocation has and a file may not have.
    let raw = Cow::Owned(raw.into_owned());
    QTensor::new(QStorage::from_data(raw, device, kind)?, Shape::from_dims(shape))
}

impl Value<'_> {
    /// For complaints: lists are not written out.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Integer(n) => n.to_string(),
            Self::Float(x) => x.to_string(),
            Self::Bool(b) => b.to_string(),
            Self::Text(text) => format!("`{text}`"),
            Self::Texts(_) | Self::Integers(_) | Self::OtherArray => "a list".into(),
        }
    }
}

fn read_metadata<'a>(reader: &mut Reader<'a>, count: u64) -> Result<HashMap<&'a str, Value<'a>>, String> {
    let mut metadata = HashMap::new();
    for index in 0..count {
        let key = reader.text(|| format!("the name of metadata entry {index} of {count}"))?;
        let what = || format!("metadata key `{key}`");
        let kind = reader.u32(&what())?;
        let value = read_value(reader, kind, &what)?;
        if metadata.insert(key, value).is_some() {
            return Err(format!("metadata key `{key}` comes twice"));
        }
    }
    Ok(metadata)
}

fn read_value<'a>(reader: &mut Reader<'a>, kind: u32, what: &dyn Fn() -> String) -> Result<Value<'a>, String> {
    const TEXT: u32 = 8;
    const ARRAY: u32 = 9;
    if kind == TEXT {
        return Ok(Value::Text(reader.text(what)?));
    }
    if kind != ARRAY {
        return read_scalar(reader, kind, what);
    }
    let kind = reader.u32(&what())?;
    let count = reader.u64(&what())?;
    if kind == TEXT {
        // A text takes at least the eight bytes of its length.
        reader.check_room(count, 8, what)?;
        let texts: Result<Vec<_>, String> = (0..count).map(|_| reader.text(what)).collect();
        return Ok(Value::Texts(texts?));
    }
    let width = scalar_width(kind).ok_or_else(|| format!("{} is a list of unknown type {kind}", what()))?;
    reader.check_room(count, width, what)?;
    let integers = [4, 5].contains(&kind);
    if !integers {
        reader.take(count as usize * width, &what())?;
        return Ok(Value::OtherArray);
    }
    let values: Result<Vec<i64>, String> = (0..count)
        .map(|_| match read_scalar(reader, kind, what)? {
            Value::Integer(n) => Ok(n as i64),
            _ => Err(format!("{} is not a list of integers", what())),
        })
        .collect();
    Ok(Value::Integers(values?))
}

/// Bytes of a scalar of GGUF's type number.
fn scalar_width(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn read_scalar<'a>(reader: &mut Reader<'a>, kind: u32, what: &dyn Fn() -> String) -> Result<Value<'a>, String> {
    let width = scalar_width(kind).ok_or_else(|| format!("{} has the unknown type {kind}", what()))?;
    let bytes = reader.take(width, &what())?;
    let mut wide = [0; 8];
    wide[..width].copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(wide);
    // Shifting up and down again copies the sign into the missing bytes.
    let shift = 64 - 8 * width as u32;
    let signed = ((unsigned << shift) as i64) >> shift;
    Ok(match kind {
        0 | 2 | 4 | 10 => Value::Integer(i128::from(unsigned)),
        1 | 3 | 5 | 11 => Value::Integer(i128::from(signed)),
        6 => Value::Float(f64::from(f32::from_bits(unsigned as u32))),
        12 => Value::Float(f64::from_bits(unsigned)),
        _ => Value::Bool(unsigned != 0),
    })
}

fn read_places<'a>(reader: &mut Reader<'a>, count: u64) -> Result<BTreeMap<&'a str, Place>, String> {
    let mut tensors = BTreeMap::new();
    for index in 0..count {
        let name = reader.text(|| format!("the name of tensor {index} of {count}"))?;
        let what = format!("tensor `{name}`");
        let dimensions = reader.u32(&what)?;
        if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
            return Err(format!("{what} has {dimensions} dimensions; 1 to {MOST_DIMENSIONS} are possible"));
        }
        let sizes: Result<Vec<u64>, String> = (0..dimensions).map(|_| reader.u64(&what)).collect();
        let mut sizes = sizes?;
        sizes.reverse();
        let kind = tensor_kind(reader.u32(&what)?).map_err(|why| format!("{what} {why}"))?;
        let from = reader.u64(&what)?;
        let place = place(&sizes, kind, from).ok_or_else(|| {
            format!("{what} of shape {sizes:?} and type {kind:?} cannot be: too large, or rows are no whole blocks")
        })?;
        if tensors.insert(name, place).is_some() {
            return Err(format!("{what} comes twice"));
        }
    }
    Ok(tensors)
}

/// `None` if a size overflows or rows are not whole blocks.
fn place(sizes: &[u64], kind: GgmlDType, from: u64) -> Option<Place> {
    let shape: Vec<usize> = sizes.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<_>>()?;
    let elements = shape.iter().try_fold(1_usize, |product, n| product.checked_mul(*n))?;
    if elements == 0 || !shape.last()?.is_multiple_of(kind.block_size()) {
        return None;
    }
    let len = (elements / kind.block_size()).checked_mul(kind.type_size())?;
    Some(Place { shape, kind, from: usize::try_from(from).ok()?, len })
}

/// The types whose products are row-invariant and tested to be (`tests/formats.rs`).
fn tensor_kind(number: u32) -> Result<GgmlDType, String> {
    Ok(match number {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        other => {
            // Names as in ggml.h; the others are too rare to be met.
            let name = match other {
                16..=19 | 21..=23 | 29 => "IQ1, IQ2, IQ3 or IQ4_XS",
                20 => "IQ4_NL",
                34 | 35 => "TQ1_0 or TQ2_0",
                39 => "MXFP4",
                _ => "unknown",
            };
            return Err(format!(
                "has type {other} ({name}), which is not supported; supported: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, \
                 Q8_0, Q2_K to Q6_K; take the model as Q8_0 or Q4_K_M"
            ));
        }
    })
}

/// Bytes taken one after another, never past the end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or_else(|| {
            format!("{what} needs {len} bytes where the file has {} left: it is cut short or damaged", rest.len())
        })?;
        self.at += len;
        Ok(taken)
    }

    fn u32(&mut self, what: &str) -> Result<u32, String> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4, what)?);
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self, what: &str) -> Result<u64, String> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8, what)?);
        Ok(u64::from_le_bytes(bytes))
    }

    fn text(&mut self, what: impl Fn() -> String) -> Result<&'a str, String> {
        let len = self.u64(&what())?;
        let bytes = self.take(usize::try_from(len).unwrap_or(usize::MAX), &what())?;
        std::str::from_utf8(bytes).map_err(|error| format!("{} is not UTF-8: {error}", what()))
    }

    /// Before a list is made: whether that many entries can be there at all.
    fn check_room(&self, count: u64, least: usize, what: &dyn Fn() -> String) -> Result<(), String> {
        let left = self.bytes.len() - self.at;
        if count > (left / least) as u64 {
            return Err(format!("{} declares {count} entries in the {left} bytes that are left", what()));
        }
        Ok(())
    }
}
