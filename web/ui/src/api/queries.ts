import { infiniteQueryOptions, keepPreviousData, QueryClient, queryOptions } from "@tanstack/react-query";
import { ApiError, http, type Schemas, take } from "./client";
import type { paths } from "./schema";
import type { Level, Mode, Role, Verdict } from "./types";

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 5_000,
      gcTime: 5 * 60_000,
      refetchOnWindowFocus: true,
      retry: (failures, error) =>
        failures < 2 && (!(error instanceof ApiError) || error.status === 0 || error.status >= 500),
    },
  },
});

/** The pages of a list, flattened, with the count of all. */
export function flat<T>(data: { pages: { items?: T[] | null; total?: number }[] } | undefined): {
  rows: T[];
  total: number;
} {
  const rows = data?.pages.flatMap((p) => p.items ?? []) ?? [];
  return { rows, total: Math.max(rows.length, data?.pages[0]?.total ?? 0) };
}

const firstPage = { initialPageParam: "", getNextPageParam: (last: { next?: string }) => last.next || undefined };

// Session

export const sessionQuery = queryOptions({
  queryKey: ["session"],
  queryFn: async () => {
    try {
      return await take(http.GET("/session"));
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) return null;
      throw error;
    }
  },
  staleTime: 60_000,
});

export const signIn = (name: string, password: string) => take(http.POST("/session", { body: { name, password } }));
export const signOut = () => take(http.DELETE("/session"));
export const changePassword = (current: string, next: string) =>
  take(http.POST("/session/password", { body: { current, new: next } }));

// Overview and system

export const overviewQuery = queryOptions({
  queryKey: ["overview"],
  queryFn: ({ signal }) => take(http.GET("/overview", { signal })),
  refetchInterval: 30_000,
});

export const systemQuery = queryOptions({
  queryKey: ["system"],
  queryFn: ({ signal }) => take(http.GET("/system", { signal })),
  refetchInterval: 10_000,
});

// Incidents

type Query<T extends keyof paths> = paths[T] extends { get: { parameters: { query?: infer Q } } }
  ? Omit<NonNullable<Q>, "cursor" | "limit">
  : never;

export type IncidentFilter = Query<"/incidents">;

export const incidentsQuery = (filter: IncidentFilter, limit = 200) =>
  infiniteQueryOptions({
    queryKey: ["incidents", filter, limit],
    queryFn: ({ pageParam, signal }) =>
      take(http.GET("/incidents", { params: { query: { ...filter, limit, cursor: pageParam || undefined } }, signal })),
    ...firstPage,
    placeholderData: keepPreviousData,
  });

export const incidentQuery = (id: string) =>
  queryOptions({
    queryKey: ["incident", id],
    queryFn: ({ signal }) => take(http.GET("/incidents/{id}", { params: { path: { id } }, signal })),
  });

export const incidentFindingsQuery = (id: string) =>
  queryOptions({
    queryKey: ["incident", id, "findings"],
    queryFn: ({ signal }) =>
      take(http.GET("/incidents/{id}/findings", { params: { path: { id }, query: { limit: 200 } }, signal })),
  });

export const acknowledge = (id: string) => take(http.POST("/incidents/{id}/acknowledge", { params: { path: { id } } }));
export const assign = (id: string, assignee: string) =>
  take(http.POST("/incidents/{id}/assign", { params: { path: { id } }, body: { assignee } }));
export const comment = (id: string, text: string) =>
  take(http.POST("/incidents/{id}/comment", { params: { path: { id } }, body: { text } }));
export const resolve = (id: string, verdict: Verdict, reason: string) =>
  take(http.POST("/incidents/{id}/resolve", { params: { path: { id } }, body: { verdict, reason } }));
export const reopen = (id: string) => take(http.POST("/incidents/{id}/reopen", { params: { path: { id } } }));

// Devices

export type DeviceFilter = Query<"/devices">;

export const devicesQuery = (filter: DeviceFilter, limit = 100) =>
  infiniteQueryOptions({
    queryKey: ["devices", filter, limit],
    queryFn: ({ pageParam, signal }) =>
      take(http.GET("/devices", { params: { query: { ...filter, limit, cursor: pageParam || undefined } }, signal })),
    ...firstPage,
    placeholderData: keepPreviousData,
  });

export const facetsQuery = queryOptions({
  queryKey: ["devices", "facets"],
  queryFn: ({ signal }) => take(http.GET("/devices/facets", { signal })),
});

export const deviceQuery = (id: string) =>
  queryOptions({
    queryKey: ["device", id],
    queryFn: ({ signal }) => take(http.GET("/devices/{id}", { params: { path: { id } }, signal })),
    refetchInterval: 15_000,
  });

export const metricsQuery = (id: string) =>
  queryOptions({
    queryKey: ["device", id, "metrics"],
    queryFn: ({ signal }) => take(http.GET("/devices/{id}/metrics", { params: { path: { id } }, signal })),
    refetchInterval: 15_000,
  });

export interface SeriesAsk {
  device: string;
  metric: string;
  from: number;
  to: number;
  points?: number;
}

export const seriesQuery = ({ device, metric, from, to, points = 600 }: SeriesAsk) =>
  queryOptions({
    queryKey: ["series", device, metric, from, to, points],
    queryFn: ({ signal }) =>
      take(
        http.GET("/devices/{id}/series", {
          params: {
            path: { id: device },
            query: { metric, from: new Date(from).toISOString(), to: new Date(to).toISOString(), points },
          },
          signal,
        }),
      ),
    placeholderData: keepPreviousData,
    staleTime: 15_000,
  });

export interface AuditAsk {
  device: string;
  from?: number;
  to?: number;
  q?: string;
  limit?: number;
}

export const auditQuery = ({ device, from, to, q, limit = 100 }: AuditAsk) =>
  infiniteQueryOptions({
    queryKey: ["audit", device, from, to, q, limit],
    queryFn: ({ pageParam, signal }) =>
      take(
        http.GET("/devices/{id}/audit", {
          params: {
            path: { id: device },
            query: {
              q: q || undefined,
              limit,
              cursor: pageParam || undefined,
              from: from === undefined ? undefined : new Date(from).toISOString(),
              to: to === undefined ? undefined : new Date(to).toISOString(),
            },
          },
          signal,
        }),
      ),
    ...firstPage,
    placeholderData: keepPreviousData,
  });

export const enroll = (body: Schemas["EnrollRequest"]) => take(http.POST("/devices", { body }));
export const renewToken = (id: string) => take(http.POST("/devices/{id}/token", { params: { path: { id } } }));
export const revoke = (id: string, reason: string) =>
  take(http.POST("/devices/{id}/revoke", { params: { path: { id } }, body: { reason } }));
export const retire = (id: string, reason: string) =>
  take(http.POST("/devices/{id}/retire", { params: { path: { id } }, body: { reason } }));

// Quarantine

export const quarantinesQuery = (state: "active" | "all", device?: string) =>
  infiniteQueryOptions({
    queryKey: ["quarantines", state, device],
    queryFn: ({ pageParam, signal }) =>
      take(
        http.GET("/quarantines", {
          params: { query: { state, device, limit: 200, cursor: pageParam || undefined } },
          signal,
        }),
      ),
    ...firstPage,
    placeholderData: keepPreviousData,
  });

export interface QuarantineAsk {
  level: Level;
  reason: string;
  until?: string;
  incident?: string;
}

export const quarantine = (device: string, body: QuarantineAsk) =>
  take(http.POST("/devices/{id}/quarantine", { params: { path: { id: device } }, body }));
export const release = (device: string, reason: string) =>
  take(http.POST("/devices/{id}/release", { params: { path: { id: device } }, body: { reason } }));

// Rules

export const rulesQuery = queryOptions({
  queryKey: ["rules"],
  queryFn: ({ signal }) => take(http.GET("/rules", { signal })),
});

export const setMode = (id: string, mode: Mode, reason: string) =>
  take(http.PUT("/rules/{id}/mode", { params: { path: { id } }, body: { mode, reason } }));

// History and people

export const deliveriesQuery = queryOptions({
  queryKey: ["deliveries"],
  queryFn: ({ signal }) => take(http.GET("/deliveries", { params: { query: { limit: 200 } }, signal })),
  refetchInterval: 15_000,
});

export const deadLettersQuery = (device?: string) =>
  infiniteQueryOptions({
    queryKey: ["dead-letters", device],
    queryFn: ({ pageParam, signal }) =>
      take(
        http.GET("/dead-letters", {
          params: { query: { device, limit: 100, cursor: pageParam || undefined } },
          signal,
        }),
      ),
    ...firstPage,
  });

export const operatorsQuery = queryOptions({
  queryKey: ["operators"],
  queryFn: ({ signal }) => take(http.GET("/operators", { signal })),
});

export const addOperator = (name: string, role: Role) => take(http.POST("/operators", { body: { name, role } }));
