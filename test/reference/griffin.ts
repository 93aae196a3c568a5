/** The statistic of GRIFFIN from its definition, in float64. */

/**
 * One layer and one prompt: each token's activations are normalised to length 1, then a channel scores the L2 norm of its activations over the
 * tokens.
 *
 * @param tokens `act(gate) · up` of each token, T × [F]; a token without any activation adds nothing
 * @returns scores [F]
 * @see Dong, Chen & Chi 2024, arXiv:2404.01365
 */
export function griffinScores(tokens: readonly Float64Array[], dFfn: number): Float64Array {
  const squares = new Float64Array(dFfn);
  for (const token of tokens) {
    const length = token.reduce((sum, value) => sum + value ** 2, 0); // squared
    if (length > 0)
      token.forEach((value, channel) => {
        squares[channel]! += value ** 2 / length;
      });
  }
  return squares.map(Math.sqrt);
}
