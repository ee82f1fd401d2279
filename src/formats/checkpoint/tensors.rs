//! Finds the tensors among the values of a pickle and names them.
//!
//! A tensor is pickled as a call of one of PyTorch's functions (`torch/_utils.py`), whose arguments are read
//! here. Everything else is searched for tensors: dictionaries of any class, lists, the attributes of objects.
//! Values that are of no use to a model are ignored.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::storage::{Numbers, Storage};
use super::{Dtype, Stored};
use crate::formats::pickle::{Id, Kind, Pickle, Value, View};

/// Maximum number of tensors in a file, and of other objects stored beside them.
const MAX_TENSORS: usize = 1 << 17;
/// Maximum length of a tensor's name, in bytes.
const MAX_NAME: usize = 1 << 10;

/// A tensor's reference to its storage.
pub struct Reference {
    /// Key of the storage, unique within its file.
    pub key: String,
    /// According to the storage's class; 0 if the class is unknown.
    pub bytes_per_number: u64,
    /// The part of the storage that is referred to, as offset and length counted in numbers. Only old files
    /// have it.
    pub view: Option<(u64, u64)>,
    dtype: Dtype,
}

/// Returns a reference's storage, or explains why there is none.
type Storages<'s> = dyn Fn(&Reference) -> Result<Arc<Storage>, String> + 's;

/// Collects all storage references of a pickle.
pub fn references(pickle: &Pickle) -> Vec<Reference> {
    pickle.all().filter_map(|value| reference(value).ok()).collect()
}

/// Returns a storage's key, which is a number or text.
pub fn key(view: View) -> String {
    match view.value() {
        Value::Int(number) => number.to_string(),
        value => value.as_str().unwrap_or_default().to_owned(),
    }
}

/// Lists the tensors of a pickle. A name consists of the keys that lead to the tensor, joined by dots.
///
/// # Errors
/// If there are too many tensors, or a name is too long.
pub fn named(pickle: &Pickle, storages: &Storages, big_endian: bool) -> Result<Vec<Stored>, String> {
    let mut walk = Walk {
        steps: Vec::new(),
        waiting: Vec::new(),
        seen: HashSet::new(),
        arrays: HashMap::new(),
        storages,
        big_endian,
        found: Vec::new(),
    };
    walk.put(NO_PARENT, Step::Through, pickle.root());
    while let Some((at, view)) = walk.waiting.pop() {
        walk.visit(at, view)?;
    }
    Ok(walk.found)
}

/// One part of a name.
enum Step<'p> {
    Key(Cow<'p, str>),
    Place(usize),
    /// Contributes nothing: the dictionaries in which a module keeps its parameters and submodules.
    Through,
}

/// The parent of the root.
const NO_PARENT: usize = usize::MAX;

struct Walk<'p, 'a, 's> {
    /// For each position, its parent and the step from there. Names are only assembled for tensors.
    steps: Vec<(usize, Step<'p>)>,
    waiting: Vec<(usize, View<'p, 'a>)>,
    /// Values already visited; each is visited once, so values may contain themselves.
    seen: HashSet<Id>,
    /// Storages of numpy arrays, by the address of their bytes.
    arrays: HashMap<*const u8, Arc<Storage>>,
    storages: &'s Storages<'s>,
    big_endian: bool,
    found: Vec<Stored>,
}

impl<'p, 'a> Walk<'p, 'a, '_> {
    fn put(&mut self, parent: usize, step: Step<'p>, view: View<'p, 'a>) {
        let holds = match view.value() {
            Value::Dict(entries) => !entries.is_empty(),
            Value::List(items) | Value::Tuple(items) => !items.is_empty(),
            Value::Object { .. } | Value::Array(_) => true,
            _ => false,
        };
        if holds {
            self.waiting.push((self.steps.len(), view));
            self.steps.push((parent, step));
        }
    }

    fn visit(&mut self, at: usize, view: View<'p, 'a>) -> Result<(), String> {
        if let Some((array, bytes)) = view.array() {
            let storage = self.arrays.entry(bytes.as_ptr());
            let storage = Arc::clone(storage.or_insert_with(|| Arc::new(Storage::Memory(bytes.to_vec()))));
            let dtype = match (array.dtype.kind, array.dtype.size) {
                (Kind::Float, size) => Dtype::named(&format!("float{}", 8 * size)),
                (Kind::Int, size) => Dtype::named(&format!("int{}", 8 * size)),
                (Kind::Uint, size) => Dtype::named(&format!("uint{}", 8 * size)),
                (Kind::Bool, _) => Dtype::Other("bool".into()),
            };
            let numbers = Numbers {
                strides: array.fortran.then(|| column_major(&array.shape)),
                big_endian: array.dtype.big_endian,
                ..Numbers::all(storage)
            };
            let stored =
                Stored { name: String::new(), dtype, shape: array.shape.clone(), numbers: Ok(numbers) };
            return self.find(at, stored);
        }
        if let Some(stored) = self.tensor(view) {
            return self.find(at, stored);
        }
        if !self.seen.insert(view.id()) {
            return Ok(());
        }
        let from = self.waiting.len();
        match view.value() {
            Value::Dict(entries) => self.entries(at, view, entries),
            Value::List(items) | Value::Tuple(items) => {
                for (place, item) in items.iter().enumerate() {
                    self.put(at, Step::Place(place), view.at(*item));
                }
            }
            Value::Object { arguments, state, entries, .. } => {
                // Reported by name if a model expects a tensor here.
                let named = matches!(self.steps[at], (_, Step::Key(_)));
                if named && entries.is_empty() && self.found.len() < MAX_TENSORS {
                    self.find(at, Stored::no_tensor(String::new(), view.to_string()))?;
                }
                self.entries(at, view, entries);
                for argument in arguments.iter().filter_map(|tuple| view.at(*tuple).items()).flatten() {
                    if matches!(argument.value(), Value::Dict(_)) {
                        self.put(at, Step::Through, argument);
                    }
                }
                if let Some(state) = state.map(|state| view.at(state))
                    && let Value::Dict(attributes) = state.value()
                    && self.seen.insert(state.id())
                {
                    self.entries(at, state, attributes);
                }
            }
            _ => {}
        }
        // Visit in the order of the file.
        self.waiting[from..].reverse();
        Ok(())
    }

    fn entries(&mut self, at: usize, view: View<'p, 'a>, entries: &[(Id, Id)]) {
        for (key, value) in entries {
            let key = view.at(*key);
            let step = match key.value() {
                Value::Int(number) => Step::Key(Cow::Owned(number.to_string())),
                value => match value.as_str() {
                    Some("_parameters" | "_buffers" | "_modules") => Step::Through,
                    Some(text) => Step::Key(Cow::Borrowed(text)),
                    // Models have no parameters below such a key.
                    None => Step::Key(Cow::Owned(format!("<{key}>"))),
                },
            };
            self.put(at, step, view.at(*value));
        }
    }

    fn find(&mut self, at: usize, stored: Stored) -> Result<(), String> {
        if self.found.len() > MAX_TENSORS {
            return Err(format!("more than the limit of {MAX_TENSORS} tensors"));
        }
        let mut parts = Vec::new();
        let (mut at, mut length) = (at, 0);
        while at != NO_PARENT {
            let (parent, step) = &self.steps[at];
            let part = match step {
                Step::Key(key) => key.clone(),
                Step::Place(place) => Cow::Owned(place.to_string()),
                Step::Through => Cow::Borrowed(""),
            };
            if !matches!(step, Step::Through) {
                length += part.len() + 1;
                parts.push(part);
            }
            if length > MAX_NAME || parts.len() > MAX_NAME {
                return Err(format!("a tensor's name is longer than the limit of {MAX_NAME} bytes"));
            }
            at = *parent;
        }
        parts.reverse();
        self.found.push(Stored { name: parts.join("."), ..stored });
        Ok(())
    }

    /// Interprets a call of one of PyTorch's functions; `None` for anything else.
    fn tensor(&self, view: View<'p, 'a>) -> Option<Stored> {
        let (mut function, mut arguments) = call(view)?;
        let mut view = view;
        // A parameter is a tensor wrapped in another call.
        for _ in 0..4 {
            match (function, arguments.as_slice()) {
                (("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"), [data, ..]) => {
                    view = *data;
                    match call(view) {
                        Some(inner) => (function, arguments) = inner,
                        None => {
                            return Some(Stored::no_tensor(String::new(), format!("a parameter of {view}")));
                        }
                    }
                }
                (("torch._tensor", "_rebuild_from_type_v2"), [inner, class, with, ..]) => {
                    match class.global() {
                        Some(("torch", "Tensor") | ("torch.nn.parameter", "Parameter" | "Buffer")) => {}
                        Some((module, class)) => {
                            let what = format!("a tensor of the class {module}.{class}");
                            return Some(Stored::no_tensor(String::new(), what));
                        }
                        None => return None,
                    }
                    function = inner.global()?;
                    arguments = with.items()?.collect();
                }
                _ => break,
            }
        }
        let ("torch._utils", function) = function else { return None };
        let other = |shape: Option<View>, what: Cow<'static, str>| {
            let shape = shape.and_then(sizes).unwrap_or_default();
            let numbers = Err(format!("is {what}"));
            Some(Stored { name: String::new(), dtype: Dtype::Other(what), shape, numbers })
        };
        match (function, arguments.as_slice()) {
            ("_rebuild_tensor", [storage, offset, size, strides]) => {
                Some(self.view(*storage, *offset, *size, *strides, None, None))
            }
            ("_rebuild_tensor_v2", [storage, offset, size, strides, _gradient, _hooks, rest @ ..]) => {
                Some(self.view(*storage, *offset, *size, *strides, None, rest.first().copied()))
            }
            ("_rebuild_tensor_v3", [storage, offset, size, strides, _gradient, _hooks, dtype, rest @ ..]) => {
                Some(self.view(*storage, *offset, *size, *strides, Some(*dtype), rest.first().copied()))
            }
            ("_rebuild_qtensor", [storage, _, size, ..]) => {
                let dtype =
                    reference(*storage).map_or_else(|what| what, |reference| reference.dtype.to_string());
                other(Some(*size), Cow::Owned(format!("quantised, {dtype}")))
            }
            ("_rebuild_sparse_tensor", [layout, parts, ..]) => {
                // Indices and values, then the size; there are two kinds of indices if rows or columns are
                // compressed.
                let parts: Vec<View> = parts.items().map(Iterator::collect).unwrap_or_default();
                let size = parts.iter().find(|part| sizes(**part).is_some()).copied();
                let layout = layout_name(*layout);
                other(size, Cow::Owned(layout))
            }
            ("_rebuild_meta_tensor_no_storage", [_, size, ..]) => {
                other(Some(*size), "on the device `meta`, without data".into())
            }
            ("_rebuild_nested_tensor", _) => other(None, "nested".into()),
            (function, _) if function.starts_with("_rebuild_") => {
                Some(Stored::no_tensor(String::new(), view.to_string()))
            }
            _ => None,
        }
    }

    /// Reads a tensor that is a view of a storage.
    fn view(
        &self,
        storage: View,
        offset: View,
        size: View,
        strides: View,
        dtype: Option<View>,
        metadata: Option<View>,
    ) -> Stored {
        let Some(shape) = sizes(size) else {
            return Stored::no_tensor(String::new(), format!("a tensor whose shape is {size}"));
        };
        let reference = match reference(storage) {
            Ok(reference) => reference,
            Err(what) => {
                let dtype = Dtype::Other(Cow::Owned(format!("a tensor whose storage is {what}")));
                return Stored { name: String::new(), dtype, shape, numbers: Err(what) };
            }
        };
        let dtype = match dtype {
            None => reference.dtype.clone(),
            Some(dtype) => Dtype::named(dtype.global().map_or("unknown type", |(_, name)| name)),
        };
        let negative = match metadata.map_or(Ok(false), is_negative) {
            Ok(negative) => negative,
            Err(what) => {
                let dtype = Dtype::Other(Cow::Owned(format!("{dtype}, {what}")));
                return Stored { name: String::new(), dtype, shape, numbers: Err(what) };
            }
        };
        let numbers = (self.storages)(&reference).and_then(|storage| {
            let offset = offset.value().as_int().and_then(|offset| usize::try_from(offset).ok());
            let offset = offset.ok_or("its offset is not a number")?;
            let strides = sizes(strides).ok_or("its strides are not numbers")?;
            let big_endian = self.big_endian;
            Ok(Numbers { storage, offset, strides: Some(strides), big_endian, negative })
        });
        Stored { name: String::new(), dtype, shape, numbers }
    }
}

/// Returns function and arguments of a call.
fn call<'p, 'a>(view: View<'p, 'a>) -> Option<((&'p str, &'p str), Vec<View<'p, 'a>>)> {
    match view.value() {
        Value::Object { class, arguments: Some(arguments), .. } => {
            let function = view.at(*class).global()?;
            // There are many other classes, and their arguments do not matter.
            let torch = matches!(function.0, "torch._utils" | "torch._tensor");
            torch.then(|| view.at(*arguments).items().map(|items| (function, items.collect())))?
        }
        _ => None,
    }
}

/// Reads sizes or strides: a tuple of integers, or a `torch.Size` of one.
fn sizes(view: View) -> Option<Vec<usize>> {
    let view = match view.value() {
        Value::Object { class, arguments: Some(arguments), .. }
            if view.at(*class).global() == Some(("torch", "Size")) =>
        {
            view.at(*arguments).items()?.next()?
        }
        _ => view,
    };
    let number = |item: View| match item.value() {
        Value::Int(number) => usize::try_from(*number).ok(),
        _ => None,
    };
    view.items()?.map(number).collect()
}

/// Parses a reference to data outside the pickle, or describes what the value is instead. Its form:
/// `("storage", class, key, device, length[, (view's key, offset, length)])`.
fn reference(view: View) -> Result<Reference, String> {
    let Value::Persistent(id) = view.value() else { return Err(view.to_string()) };
    let parts: Vec<View> = view.at(*id).items().map(Iterator::collect).unwrap_or_default();
    let [kind, class, name, _device, _length, rest @ ..] = parts.as_slice() else {
        return Err(view.to_string());
    };
    if kind.value().as_str() != Some("storage") {
        return Err(view.to_string());
    }
    let class = class.global().map_or("of unknown class", |(_, class)| class);
    let (dtype, bytes_per_number) = storage_type(class)
        .unwrap_or_else(|| (Dtype::Other(Cow::Owned(format!("unknown storage type {class}"))), 0));
    let view = match rest.first().and_then(|view| view.items()).map(Iterator::collect::<Vec<_>>).as_deref() {
        Some([_key, offset, length]) => {
            let number = |view: &View| view.value().as_int().and_then(|number| u64::try_from(number).ok());
            Some(number(offset).zip(number(length)).ok_or("a storage whose view is not given in numbers")?)
        }
        _ => None,
    };
    Ok(Reference { key: key(*name), bytes_per_number, view, dtype })
}

/// Whether the stored numbers must be negated, according to the properties PyTorch stores with a tensor: `neg`
/// and, for complex numbers, `conj`.
fn is_negative(metadata: View) -> Result<bool, String> {
    let entries = match metadata.value() {
        Value::None => return Ok(false),
        Value::Dict(entries) => entries,
        _ => return Err(format!("described by {metadata}")),
    };
    let mut negative = false;
    for (key, value) in entries {
        let set = !matches!(metadata.at(*value).value(), Value::Bool(false) | Value::None);
        match metadata.at(*key).value().as_str() {
            Some("neg") => negative = set,
            Some("conj") => {}
            Some(other) if set => return Err(format!("with the unknown property `{other}`")),
            _ => {}
        }
    }
    Ok(negative)
}

/// Returns the name of a layout, such as `sparse_coo`.
fn layout_name(layout: View) -> String {
    let name = match layout.value() {
        Value::Object { arguments: Some(arguments), .. } => {
            let name = layout.at(*arguments).items().and_then(|mut arguments| arguments.next());
            name.and_then(|name| name.value().as_str())
        }
        _ => layout.global().map(|(_, name)| name),
    };
    let name = name.map_or("sparse", |name| name.strip_prefix("torch.").unwrap_or(name));
    name.replace("sparse_", "sparse, ")
}

/// Returns the strides of an array whose first index varies fastest.
fn column_major(shape: &[usize]) -> Vec<usize> {
    let mut next = 1_usize;
    shape
        .iter()
        .map(|n| {
            let stride = next;
            next = next.saturating_mul(*n);
            stride
        })
        .collect()
}

/// Returns the type and bytes per number of a storage class.
fn storage_type(class: &str) -> Option<(Dtype, u64)> {
    let other = |name: &'static str, size: u64| (Dtype::Other(name.into()), size);
    Some(match class {
        "DoubleStorage" => (Dtype::F64, 8),
        "FloatStorage" => (Dtype::F32, 4),
        "HalfStorage" => (Dtype::F16, 2),
        "BFloat16Storage" => (Dtype::Bf16, 2),
        "LongStorage" => other("int64", 8),
        "IntStorage" => other("int32", 4),
        "ShortStorage" => other("int16", 2),
        "CharStorage" => other("int8", 1),
        "ByteStorage" => other("uint8", 1),
        "BoolStorage" => other("bool", 1),
        "ComplexFloatStorage" => other("complex64", 8),
        "ComplexDoubleStorage" => other("complex128", 16),
        "QInt8Storage" => other("qint8", 1),
        "QUInt8Storage" => other("quint8", 1),
        "QInt32Storage" => other("qint32", 4),
        "QUInt4x2Storage" => other("quint4x2", 1),
        "QUInt2x4Storage" => other("quint2x4", 1),
        "UntypedStorage" => other("untyped", 1),
        _ => return None,
    })
}
