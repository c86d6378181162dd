"""The refined shared network: without steps it is the shared network, with steps it corrects itself."""

import torch

from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.methods.pudnet import refined

LABELS = torch.tensor([0, 0, 1, 1])


def test_no_steps_are_the_shared_network_and_steps_move_it_by_their_length():
    shared = SharedNetwork(SharedConfig(TargetConfig(width=3), seed=4)).eval()
    before = {name: tensor.clone() for name, tensor in shared.state_dict().items()}
    sketch = torch.randint(0, 256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        own = shared(sketch, LABELS)
        plain = refined(shared, refine=LastBlock(0))(sketch, LABELS)
        moved = refined(shared, refine=LastBlock(1, layers="all"))(sketch, LABELS)
    assert all(torch.equal(own[name], plain[name]) for name in own)
    for tensor in shared.layout.predicted:
        weight = own[tensor.name]
        assert torch.allclose((moved[tensor.name] - weight).norm(), 0.2 * weight.norm(), rtol=1e-4)
    assert refined(shared, refine=LastBlock(1, layers="all")).sees_support
    assert all(torch.equal(tensor, before[name]) for name, tensor in shared.state_dict().items())
