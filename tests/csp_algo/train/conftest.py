# SPDX-License-Identifier: Apache-2.0
import pytest


@pytest.fixture(autouse=True)
def one_thread():
    # Threads wait for each other actively: on a busy machine more of them are far slower.
    torch = pytest.importorskip("torch", reason="training needs the extra 'train': make train-test")
    torch.set_num_threads(1)
