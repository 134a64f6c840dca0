# SPDX-License-Identifier: Apache-2.0
"""Settings of all tests."""

from hypothesis import settings

# A routine run tries the same examples every time, so it fails for its change only, and on a busy
# machine no example is too slow. `make soak` looks further, with new examples every time.
settings.register_profile("routine", deadline=None, derandomize=True)
settings.register_profile("soak", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("routine")
