/** A line without axes; its numbers stand beside it. */
export function Sparkline({
  values,
  width = 88,
  height = 18,
  ink = "var(--cd-expected-fill)",
}: {
  values: readonly number[];
  width?: number;
  height?: number;
  ink?: string;
}) {
  if (values.length < 2) return <svg width={width} height={height} aria-hidden="true" />;
  const top = Math.max(...values, 1);
  const step = width / (values.length - 1);
  const points = values.map((v, i) => `${(i * step).toFixed(1)},${(height - 1 - (v / top) * (height - 2)).toFixed(1)}`);
  return (
    <svg width={width} height={height} aria-hidden="true">
      <polyline points={points.join(" ")} fill="none" stroke={ink} strokeWidth="1.4" strokeLinejoin="round" />
    </svg>
  );
}
