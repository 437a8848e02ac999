"""The layers that models are made of, under the names and call conventions of the seed era."""
