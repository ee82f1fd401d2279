//! Registers the kernels in the gradient graph.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{Kernels, Norm};

impl<B: Kernels, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn conv3x3(x: FloatTensor<Self>, weight: FloatTensor<Self>, size: [usize; 2]) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        match Conv3x3.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let output = B::conv3x3(x.clone(), weight.clone(), size);
                prepared.finish((x, weight), output)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::conv3x3(x, weight, size)),
        }
    }

    fn normalize_batch(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        norm: Norm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let (x, gamma, beta) = (x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
        let (output, mean, variance) = B::normalize_batch(x.clone(), gamma.clone(), beta.clone(), norm);
        let output = match BatchNorm(norm).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                prepared.finish([x, gamma, beta, mean.clone(), variance.clone()], output)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        };
        (output, FloatTensor::<Self>::new(mean), FloatTensor::<Self>::new(variance))
    }

    fn biased_product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        match BiasedProduct.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let output = B::biased_product(x.clone(), weight.clone(), bias);
                prepared.finish((x, weight), output)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::biased_product(x, weight, bias)),
        }
    }

    fn gelu_product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        match GeluProduct.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let product = B::biased_product(x.clone(), weight.clone(), bias);
                let output = B::exact_gelu(product.clone());
                prepared.finish([x, weight, product], output)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::gelu_product(x, weight, bias)),
        }
    }
}

#[derive(Debug)]
struct GeluProduct;

impl<B: Kernels> Backward<B, 3> for GeluProduct {
    /// x, the weight, and their product with the bias.
    type State = [FloatTensor<B>; 3];

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [x, weight, product] = ops.state;
        let gradient = B::exact_gelu_backward(product, gradient);
        let parents = ops.parents.map(|node| Some(node?.id));
        linear_backward::<B>(parents, [x, weight], gradient, gradients);
    }
}

/// Registers the gradients of x, a weight and a bias, given that of x times the weight plus the bias.
fn linear_backward<B: Kernels>(
    parents: [Option<NodeId>; 3],
    [x, weight]: [FloatTensor<B>; 2],
    gradient: FloatTensor<B>,
    gradients: &mut Gradients,
) {
    let [of_x, of_weight, of_bias] = parents;
    if let Some(node) = of_x {
        gradients.register::<B>(node, B::linear_x_backward(weight, gradient.clone()));
    }
    if let Some(node) = of_weight {
        gradients.register::<B>(node, B::linear_weight_backward(x, gradient.clone()));
    }
    if let Some(node) = of_bias {
        gradients.register::<B>(node, B::linear_bias_backward(gradient));
    }
}

#[derive(Debug)]
struct BiasedProduct;

impl<B: Kernels> Backward<B, 3> for BiasedProduct {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let (x, weight) = ops.state;
        let parents = ops.parents.map(|node| Some(node?.id));
        linear_backward::<B>(parents, [x, weight], gradient, gradients);
    }
}

#[derive(Debug)]
struct Conv3x3;

impl<B: Kernels> Backward<B, 2> for Conv3x3 {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let (x, weight) = ops.state;
        let [x_node, weight_node] = ops.parents;
        let (for_x, for_weight) = B::conv3x3_backward(x, weight, gradient, x_node.is_some());
        if let (Some(node), Some(gradient)) = (x_node, for_x) {
            gradients.register::<B>(node.id, gradient);
        }
        if let Some(node) = weight_node {
            gradients.register::<B>(node.id, for_weight);
        }
    }
}

#[derive(Debug)]
struct BatchNorm(Norm);

impl<B: Kernels> Backward<B, 3> for BatchNorm {
    /// x, gamma, beta, mean, variance.
    type State = [FloatTensor<B>; 5];

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [x, gamma, beta, mean, variance] = ops.state;
        let (x, gamma, beta) = B::normalize_batch_backward(x, gamma, beta, mean, variance, self.0, gradient);
        for (node, gradient) in ops.parents.into_iter().zip([x, gamma, beta]) {
            if let Some(node) = node {
                gradients.register::<B>(node.id, gradient);
            }
        }
    }
}
