"""Objectives: denoising score matching and the regularisers that go with it."""
