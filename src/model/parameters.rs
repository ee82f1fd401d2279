//! A module's parameters in PyTorch's names and layouts.
//!
//! A parameter's name is its path through the module's fields, which are named as in the original PyTorch code.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

use crate::{Error, Result};

/// Lists the parameters of a module in the order of its fields, with names and shapes as in PyTorch.
pub fn list<M: Module>(module: &M) -> Vec<(String, Vec<usize>)> {
    #[derive(Default)]
    struct List {
        place: ParameterPath,
        parameters: Vec<(String, Vec<usize>)>,
    }
    impl ModuleVisitor for List {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.place.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.place.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.parameters.push((self.place.name(), self.place.shape(param)));
        }
    }
    let mut list = List::default();
    module.visit(&mut list);
    list.parameters
}

/// Sets every parameter of `module` to the numbers that `values` returns for its name and shape, both as in PyTorch.
///
/// # Errors
/// The first error of `values`, or if it returns a different number of values than the shape has.
pub fn fill<M: Module>(module: M, values: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>) -> Result<M> {
    struct Fill<F> {
        place: ParameterPath,
        values: F,
        error: Option<Error>,
    }
    impl<F: FnMut(&str, &[usize]) -> Result<Vec<f32>>> Fill<F> {
        fn tensor<const D: usize>(&mut self, param: &Param<Tensor<D>>) -> Result<Tensor<D>> {
            let (name, shape) = (self.place.name(), self.place.shape(param));
            let values = (self.values)(&name, &shape)?;
            if values.len() != shape.iter().product::<usize>() {
                return Err(Error::mismatch(format!(
                    "{name}: expected numbers for shape {shape:?}, found {}",
                    values.len()
                )));
            }
            let data = match (self.place.is_linear_weight(), &shape[..]) {
                (true, &[out, into]) => TensorData::new(transpose(&values, out, into), [into, out]),
                _ => TensorData::new(values, shape),
            };
            Ok(Tensor::from_data(data, &param.lazy_device()))
        }
    }
    impl<F: FnMut(&str, &[usize]) -> Result<Vec<f32>>> ModuleMapper for Fill<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.place.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.place.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.error.is_some() {
                return param;
            }
            match self.tensor(&param) {
                Ok(tensor) => {
                    let id = param.id;
                    param.transform_for_load(tensor, id)
                }
                Err(error) => {
                    self.error = Some(error);
                    param
                }
            }
        }
    }
    let mut fill = Fill { place: ParameterPath::default(), values, error: None };
    let module = module.map(&mut fill);
    fill.error.map_or(Ok(module), Err)
}

/// Transposes [rows, columns] to [columns, rows], in blocks that fit into the cache. A transposed view would also work, but
/// slows down matrix products.
fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const SIDE: usize = 32;
    let mut transposed = vec![0.0; values.len()];
    for row in (0..rows).step_by(SIDE) {
        for column in (0..columns).step_by(SIDE) {
            for r in row..rows.min(row + SIDE) {
                for c in column..columns.min(column + SIDE) {
                    transposed[c * rows + r] = values[r * columns + c];
                }
            }
        }
    }
    transposed
}

/// The position of a walk through a module.
#[derive(Default)]
pub(crate) struct ParameterPath {
    /// Field names from the root, each with the type that contains it (`Struct:Linear`).
    path: Vec<(String, String)>,
}

impl ParameterPath {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        // Translates Burn's names of a norm's two parameters into PyTorch's.
        let name = match (container, name) {
            ("Struct:LayerNorm", "gamma") => "weight",
            ("Struct:LayerNorm", "beta") => "bias",
            _ => name,
        };
        self.path.push((name.to_owned(), container.to_owned()));
    }

    pub(crate) fn exit(&mut self) {
        self.path.pop();
    }

    pub(crate) fn name(&self) -> String {
        // Enum variants are not part of PyTorch's names.
        let fields = self.path.iter().filter(|(_, container)| !container.starts_with("Enum:"));
        fields.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(".")
    }

    /// Returns the type that contains the step before the last `up` ones: `Struct:Linear`, `Vec`, …; empty above the root.
    pub(crate) fn container(&self, up: usize) -> &str {
        self.path.iter().rev().nth(up).map_or("", |(_, container)| container)
    }

    /// Whether this is the weight of a linear layer, which Burn stores as [in, out] and PyTorch as [out, in].
    pub(crate) fn is_linear_weight(&self) -> bool {
        self.path.last().is_some_and(|(name, container)| name == "weight" && container == "Struct:Linear")
    }

    fn shape<const D: usize>(&self, param: &Param<Tensor<D>>) -> Vec<usize> {
        let mut shape = param.lazy_shape().to_vec();
        if self.is_linear_weight() {
            shape.reverse();
        }
        shape
    }
}
