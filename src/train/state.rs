//! The parameters of a module by name, in PyTorch's names and layouts: to load reference weights, to compare with them, and
//! to save and resume a training.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor, TensorData};
use ndarray::{ArrayD, Axis, concatenate};

use crate::model::parameters::ParameterPath;
use crate::{Error, Result};

/// Arrays by parameter name.
pub type State = BTreeMap<String, ArrayD<f32>>;

/// Returns all parameters and running statistics of a module.
pub fn state<M: Module>(module: &M) -> State {
    copied(lazy_state(module))
}

/// Like [`state`], but copies each array off its device only on request, so that a large module need not be in memory
/// twice.
pub fn lazy_state<M: Module>(module: &M) -> BTreeMap<String, LazyArray> {
    let mut collect = Collect { place: ParameterPath::default(), gradients: None, blocks: BTreeMap::new() };
    module.visit(&mut collect);
    collect.joined()
}

/// An array in PyTorch's layout whose numbers are still on a device.
pub struct LazyArray {
    shape: Vec<usize>,
    /// One block; for a convolution several, which differ only in their inputs (axis 1).
    blocks: Vec<Block>,
}

/// A tensor on a device and its conversion to PyTorch's layout.
struct Block {
    shape: Vec<usize>,
    copy: Box<dyn Fn() -> ArrayD<f32> + Send + Sync>,
}

impl LazyArray {
    /// Wraps a tensor that stays flat.
    pub fn flat(tensor: Tensor<1>) -> Self {
        let shape = tensor.dims().to_vec();
        Self::new(vec![Block { shape, copy: Box::new(move || array(tensor.clone())) }])
    }

    /// Wraps an array that is already in memory.
    pub fn of(array: ArrayD<f32>) -> Self {
        let shape = array.shape().to_vec();
        Self::new(vec![Block { shape, copy: Box::new(move || array.clone()) }])
    }

    fn new(blocks: Vec<Block>) -> Self {
        let mut shape = blocks.first().map_or(Vec::new(), |block| block.shape.clone());
        if blocks.len() > 1
            && let Some(inputs) = shape.get_mut(1)
        {
            *inputs = blocks.iter().map(|block| block.shape[1]).sum();
        }
        LazyArray { shape, blocks }
    }

    /// Returns its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Copies its numbers off the device.
    pub fn to_array(&self) -> ArrayD<f32> {
        match self.blocks.as_slice() {
            [one] => (one.copy)(),
            blocks => {
                let blocks: Vec<ArrayD<f32>> = blocks.iter().map(|block| (block.copy)()).collect();
                let views: Vec<_> = blocks.iter().map(ArrayD::view).collect();
                concatenate(Axis(1), &views).expect("the blocks of a convolution differ in their inputs only")
            }
        }
    }
}

fn copied(arrays: BTreeMap<String, LazyArray>) -> State {
    arrays.into_iter().map(|(name, lazy)| (name, lazy.to_array())).collect()
}

/// Returns the gradients of a module's parameters, by parameter name.
pub fn gradients<M: Module>(module: &M, gradients: &Gradients) -> State {
    let mut collect =
        Collect { place: ParameterPath::default(), gradients: Some(gradients), blocks: BTreeMap::new() };
    module.visit(&mut collect);
    copied(collect.joined())
}

/// Whether all numbers of a module are finite.
pub fn is_finite<M: Module>(module: &M) -> bool {
    lazy_state(module).values().all(|lazy| lazy.to_array().iter().all(|number| number.is_finite()))
}

/// Loads `state` into a module.
///
/// # Errors
/// If the state lacks a parameter, has one of a different shape, or contains a name that the module lacks.
pub fn load<M: Module>(module: M, state: &State) -> Result<M> {
    let mut fill = Fill { place: ParameterPath::default(), state, taken: BTreeMap::new(), problem: None };
    let module = module.map(&mut fill);
    let unused: Vec<&str> = (state.iter())
        .filter(|(name, array)| fill.taken.get(*name).copied() != Some(inputs(array)))
        .map(|(name, _)| name.as_str())
        .collect();
    match fill.problem {
        Some(problem) => Err(Error::mismatch(problem)),
        None if unused.is_empty() => Ok(module),
        None => Err(Error::mismatch(format!("the module does not use all of {}", unused.join(", ")))),
    }
}

/// How a parameter is stored here, compared with PyTorch's layout.
enum TorchLayout {
    Same,
    /// [i, o] here, [o, i] in PyTorch.
    Linear,
    /// [i, o] here, [o, i, 1, 1] in PyTorch.
    Pointwise,
    /// One block of [3, 3, i, o] here, [o, sum of i, 3, 3] in PyTorch.
    Conv3x3,
    /// [i, 2, 2, o] here, [i, o, 2, 2] in PyTorch.
    Upsample,
}

/// Returns the name of the parameter at a path and its layout. Blocks of one weight share its name.
fn named(place: &ParameterPath, rank: usize) -> (String, TorchLayout) {
    let name = place.name();
    match (place.container(0), place.container(1), rank) {
        ("Vec", "Struct:Conv3x3", _) => {
            let weight = name.rsplit_once('.').map_or(name.as_str(), |(weight, _)| weight);
            (weight.to_owned(), TorchLayout::Conv3x3)
        }
        ("Struct:Pointwise", _, 2) => (name, TorchLayout::Pointwise),
        ("Struct:Upsample", _, 4) => (name, TorchLayout::Upsample),
        _ if place.is_linear_weight() => (name, TorchLayout::Linear),
        _ => (name, TorchLayout::Same),
    }
}

impl TorchLayout {
    /// Returns PyTorch's shape of an array that has `shape` here.
    fn torch_shape(&self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (TorchLayout::Linear, shape) => shape.iter().rev().copied().collect(),
            (TorchLayout::Pointwise, [i, o]) => vec![*o, *i, 1, 1],
            (TorchLayout::Conv3x3, [h, w, i, o]) => vec![*o, *i, *h, *w],
            (TorchLayout::Upsample, [i, h, w, o]) => vec![*i, *o, *h, *w],
            (_, shape) => shape.to_vec(),
        }
    }

    fn to_torch(&self, array: ArrayD<f32>) -> ArrayD<f32> {
        match self {
            TorchLayout::Same => array,
            TorchLayout::Linear => array.reversed_axes(),
            TorchLayout::Pointwise => array.reversed_axes().insert_axis(Axis(2)).insert_axis(Axis(3)),
            TorchLayout::Conv3x3 => array.permuted_axes(vec![3, 2, 0, 1]),
            TorchLayout::Upsample => array.permuted_axes(vec![0, 3, 1, 2]),
        }
    }

    fn of_torch(&self, array: ArrayD<f32>) -> ArrayD<f32> {
        match self {
            TorchLayout::Same => array,
            TorchLayout::Linear => array.reversed_axes(),
            TorchLayout::Pointwise => {
                array.index_axis_move(Axis(3), 0).index_axis_move(Axis(2), 0).reversed_axes()
            }
            TorchLayout::Conv3x3 => array.permuted_axes(vec![2, 3, 1, 0]),
            TorchLayout::Upsample => array.permuted_axes(vec![0, 2, 3, 1]),
        }
    }
}

struct Collect<'a> {
    place: ParameterPath,
    gradients: Option<&'a Gradients>,
    blocks: BTreeMap<String, Vec<Block>>,
}

impl Collect<'_> {
    fn joined(self) -> BTreeMap<String, LazyArray> {
        self.blocks.into_iter().map(|(name, blocks)| (name, LazyArray::new(blocks))).collect()
    }
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.place.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = match self.gradients {
            Some(gradients) => param.val().grad(gradients),
            None => Some(param.val()),
        };
        if let Some(value) = value {
            let (name, layout) = named(&self.place, D);
            let shape = layout.torch_shape(&value.dims());
            let copy = move || layout.to_torch(array(value.clone()));
            self.blocks.entry(name).or_default().push(Block { shape, copy: Box::new(copy) });
        }
    }
}

/// Copies the numbers of a tensor.
fn array<const D: usize>(tensor: Tensor<D>) -> ArrayD<f32> {
    let shape = tensor.dims().to_vec();
    let values = tensor.into_data().convert::<f32>().try_into_vec().expect("float32 numbers");
    ArrayD::from_shape_vec(shape, values).expect("as many numbers as the shape has")
}

struct Fill<'a> {
    place: ParameterPath,
    state: &'a State,
    /// Number of inputs of each array already assigned to blocks.
    taken: BTreeMap<String, usize>,
    problem: Option<String>,
}

/// Number of inputs of an array in PyTorch's layout: the length of its second axis.
fn inputs(array: &ArrayD<f32>) -> usize {
    array.shape().get(1).copied().unwrap_or(1)
}

impl Fill<'_> {
    /// Returns the numbers of one parameter, in the given shape and in the layout used here.
    fn take(&mut self, name: &str, layout: &TorchLayout, shape: &[usize]) -> Result<ArrayD<f32>, String> {
        let array = self.state.get(name).ok_or_else(|| format!("`{name}` is missing"))?;
        let taken = self.taken.entry(name.to_owned()).or_default();
        let block = match (layout, shape) {
            (TorchLayout::Conv3x3, [_, _, i, _]) if *taken + i <= inputs(array) => {
                array.slice_axis(Axis(1), (*taken..*taken + i).into()).into_owned()
            }
            _ => array.clone(),
        };
        *taken += inputs(&block);
        let expected = layout.torch_shape(shape);
        if block.shape() != expected {
            return Err(format!("`{name}`: expected shape {expected:?}, found {:?}", array.shape()));
        }
        Ok(layout.of_torch(block))
    }
}

impl ModuleMapper for Fill<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.place.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.lazy_shape().to_vec();
        let (name, layout) = named(&self.place, D);
        match self.take(&name, &layout, &shape) {
            Ok(array) => {
                let data = TensorData::new(array.iter().copied().collect(), shape);
                let (tensor, id) = (Tensor::from_data(data, &param.lazy_device()), param.id);
                param.transform_for_load(tensor, id)
            }
            Err(problem) => {
                self.problem.get_or_insert(problem);
                param
            }
        }
    }
}
